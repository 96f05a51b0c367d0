"""Keys, access to a tenant's account, sealed contact data, and the audit of every change."""
