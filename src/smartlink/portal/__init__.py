"""The portal: accounts, chat, notifications, campaigns and wallets, with their API and pages."""
