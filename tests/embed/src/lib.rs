//! A program can link one SQLite only. This one uses it through longshore, through sqlx and through diesel.
