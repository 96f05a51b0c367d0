"""The engines and the database: connections, logins, migrations, background passes, exposure journal, doctor."""
