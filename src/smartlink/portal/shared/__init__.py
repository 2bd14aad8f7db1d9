"""What every feature of the portal stands on: settings, database, work, security, paging, errors."""
