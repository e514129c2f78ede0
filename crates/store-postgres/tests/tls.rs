//! TLS, as `sslmode` and `sslrootcert` in the URL ask for it.

use attune_store_postgres::{ConnectError, PostgresStore};
use attune_testkit::PrivatePostgres;
use attune_testkit::database::{TestDatabase, config};

#[tokio::test]
async fn a_server_is_trusted_as_far_as_the_url_says() {
    let server = tokio::task::spawn_blocking(PrivatePostgres::start_with_tls).await.unwrap();
    let database = TestDatabase::on(&server.url()).await;
    let (by_address, by_name) =
        (database.url(), database.url_via(&server.authority().replace("127.0.0.1", "localhost")));
    let vouched = format!("sslrootcert={}", server.ca_file().display());
    // Whether the connection is one by TLS.
    for (url, expected) in [
        (format!("{by_address}?sslmode=disable"), "false"),
        (by_address.clone(), "true"),
        (format!("{by_address}?sslmode=require"), "true"),
        (format!("{by_address}?sslmode=verify-ca&{vouched}"), "true"),
        (format!("{by_name}?sslmode=verify-full&{vouched}"), "true"),
    ] {
        let store = PostgresStore::connect(&config(&url)).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let ours = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                    WHERE application_name = 'attune-agents' AND datname = current_database()";
        assert_eq!(database.texts(ours).await.unwrap(), [expected], "{url}");
        store.close().await;
    }
    for (url, why) in [
        (format!("{by_name}?sslmode=verify-full"), "nobody vouches for it"),
        (format!("{by_name}?sslmode=verify-ca"), "nobody vouches for it"),
        (format!("{by_address}?sslmode=verify-full&{vouched}"), "it is not who it should be"),
        (format!("{by_name}?sslmode=verify-full&sslrootcert=/nonexistent/ca.pem"), "there is no such file"),
    ] {
        let error = PostgresStore::connect(&config(&url)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }) && !error.may_pass(), "{why}: {error:?}");
    }
    drop(database);
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_when_it_is_required() {
    let server = tokio::task::spawn_blocking(PrivatePostgres::start).await.unwrap();
    let database = TestDatabase::on(&server.url()).await;
    let error = PostgresStore::connect(&config(&format!("{}?sslmode=require", database.url()))).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    PostgresStore::connect(&config(&database.url())).await.unwrap().close().await;
    drop(database);
}
