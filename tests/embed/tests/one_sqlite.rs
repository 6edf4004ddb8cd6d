//! All three open a database in one process.

use diesel::prelude::*;
use diesel::sql_types::Text;

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[tokio::test]
async fn one_sqlite_serves_longshore_sqlx_and_diesel() {
    let mut diesel = SqliteConnection::establish(":memory:").expect("diesel opens");
    let of_diesel: Vec<Version> = diesel::sql_query("select sqlite_version() as version").load(&mut diesel).expect("diesel asks");

    let sqlx = sqlx::SqlitePool::connect("sqlite::memory:").await.expect("sqlx opens");
    let of_sqlx: String = sqlx::query_scalar("select sqlite_version()").fetch_one(&sqlx).await.expect("sqlx asks");

    assert_eq!(of_diesel[0].version, of_sqlx);
    longshore_opens().await;
}

async fn longshore_opens() {
    let reference: longshore::types::Reference = "busybox".parse().expect("a reference");
    assert_eq!(reference.to_string(), "docker.io/library/busybox:latest");
}
