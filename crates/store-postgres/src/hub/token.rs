//! What tokens of sensors are made of. A host that starts asks for hundreds at once: what is asked while another one is under
//! way shares a statement.

use attune_model::IdentityId;
use attune_store::{StoreError, TokenSubject};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::PostgresStore;
use crate::error::During as _;
use crate::pool::{Pool, Query};
use crate::together::{Answer, Together, answers, lost};

/// A row for each of the sensors `$1` and the logins `$2`, in whatever order, with its place counted from 1. Its triggers are NULL
/// when there is no such sensor, and the one element NULL when it has none. Each of the three tables is read by an index.
const SUBJECTS: &str = r#"
    SELECT asked.place,
           (SELECT array_agg("trigger".ref::text ORDER BY "trigger".ref COLLATE "C")
            FROM sensor LEFT JOIN "trigger" ON "trigger".sensor = sensor.id
            WHERE sensor.ref = asked.ref),
           (SELECT id FROM identity WHERE login = asked.login)
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (ref, login, place)
"#;

/// Subjects, by the refs of their sensors, that are read together.
pub(crate) type TokenSubjects = Together<String, Result<Option<TokenSubject>, StoreError>>;

pub(crate) fn token_subjects() -> TokenSubjects {
    Together::new(|pool, sensor_refs| Box::pin(read_together(pool, sensor_refs)))
}

pub(super) async fn subject(store: &PostgresStore, sensor_ref: &str) -> Result<Option<TokenSubject>, StoreError> {
    match store.token_subjects.call(&store.pool, sensor_ref.to_owned()).await {
        Answer::Is(subject) => return subject,
        Answer::Lost => return Err(lost(reading(sensor_ref))),
        Answer::Alone => {}
    }
    let row = store.pool.one(query(&[sensor_ref.to_owned()])).await.during(|| reading(sensor_ref))?;
    subject_of(&row, sensor_ref)
}

async fn read_together(pool: Pool, sensor_refs: Vec<String>) -> Vec<Answer<Result<Option<TokenSubject>, StoreError>>> {
    let places = (1..).zip(0..sensor_refs.len()).collect();
    let rows = pool.all(query(&sensor_refs)).await;
    answers(
        &sensor_refs,
        &places,
        rows,
        |row, sensor_ref| subject_of(row, sensor_ref),
        |sensor_ref| reading(sensor_ref),
    )
}

fn query(sensor_refs: &[String]) -> Query<'_> {
    let logins: Vec<String> = sensor_refs.iter().map(|sensor_ref| TokenSubject::login(sensor_ref)).collect();
    sqlx::query(SUBJECTS).bind(sensor_refs).bind(logins)
}

fn subject_of(row: &PgRow, sensor_ref: &str) -> Result<Option<TokenSubject>, StoreError> {
    let operation = || reading(sensor_ref);
    let triggers = row.try_get::<Option<Vec<Option<String>>>, _>(1).during(operation)?;
    let Some(triggers) = triggers else { return Ok(None) };
    let identity = row.try_get::<Option<i64>, _>(2).during(operation)?.map(IdentityId);
    Ok(Some(TokenSubject { trigger_refs: triggers.into_iter().flatten().collect(), identity }))
}

fn reading(sensor_ref: &str) -> String {
    format!("read what a token of sensor {sensor_ref} is made of")
}
