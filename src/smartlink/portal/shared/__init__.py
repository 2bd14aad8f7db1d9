"""What all features of the portal share: settings, database, units of work, security, paging, errors."""
