//! Sensors of a pack, and which trigger is whose.

use std::collections::HashMap;

use attune_store::{NewSensor, StoreError};
use sqlx::Row as _;

use super::components::sensor_columns;
use super::pack::Load;
use crate::error::During as _;

impl Load<'_> {
    /// Stores the sensors and says which trigger is whose; the refs of those that were not skipped.
    pub(super) async fn sensors(&mut self) -> Result<Vec<String>, StoreError> {
        let mut owners: HashMap<&str, &str> = HashMap::new();
        let mut stored = Vec::new();
        let mut links = Vec::new();
        for sensor in &self.pack.sensors {
            let runtime = self.find_kept("runtime", &sensor.runtime_ref).await?;
            let reason = match runtime {
                None => Some(format!("runtime {} does not exist", sensor.runtime_ref)),
                Some(_) => self.untakeable(sensor, &owners).await?,
            };
            if let Some(reason) = reason {
                self.skip("sensor", &sensor.r#ref, reason);
                continue;
            }
            let id = self.put("sensor", &sensor.r#ref, sensor_columns(sensor, runtime)).await?;
            stored.push(sensor.r#ref.clone());
            for trigger in &sensor.trigger_refs {
                owners.insert(trigger, &sensor.r#ref);
                links.push((trigger.clone(), id, sensor.r#ref.clone()));
            }
        }
        self.link_triggers(&links).await?;
        Ok(stored)
    }

    /// Why this sensor cannot have its triggers.
    async fn untakeable(
        &mut self,
        sensor: &NewSensor,
        owners: &HashMap<&str, &str>,
    ) -> Result<Option<String>, StoreError> {
        for trigger in &sensor.trigger_refs {
            if self.find_kept("\"trigger\"", trigger).await?.is_none() {
                return Ok(Some(format!("trigger {trigger} does not exist")));
            }
            let mut owner = owners.get(trigger.as_str()).map(|&owner| owner.to_owned());
            if owner.is_none() {
                // Links to sensors of this pack are about to be written anew.
                let query = sqlx::query(
                    r#"
                    SELECT sensor.ref FROM "trigger" JOIN sensor ON sensor.id = "trigger".sensor
                    WHERE "trigger".ref = $1 AND (sensor.pack IS DISTINCT FROM $2 OR sensor.is_adhoc) AND sensor.ref <> $3
                    "#,
                )
                .bind(trigger)
                .bind(self.id)
                .bind(&sensor.r#ref);
                let row = self.unit.optional(query).await.during(|| self.operation.to_owned())?;
                owner = row.map(|row| row.try_get(0).during(|| self.operation.to_owned())).transpose()?;
            }
            if let Some(owner) = owner.filter(|owner| *owner != sensor.r#ref) {
                return Ok(Some(format!("trigger {trigger} belongs to sensor {owner}")));
            }
        }
        Ok(None)
    }

    async fn link_triggers(&mut self, links: &[(String, i64, String)]) -> Result<(), StoreError> {
        let during = || self.operation.to_owned();
        let linked: Vec<String> = links.iter().map(|(trigger, ..)| trigger.clone()).collect();
        let query = sqlx::query(
            r#"
            UPDATE "trigger" SET sensor = NULL, sensor_ref = NULL
            WHERE sensor IN (SELECT id FROM sensor WHERE pack = $1 AND NOT is_adhoc) AND ref <> ALL ($2)
            "#,
        )
        .bind(self.id)
        .bind(linked);
        self.unit.execute(query).await.during(during)?;
        for (trigger, sensor, sensor_ref) in links {
            let query = sqlx::query(
                r#"
                UPDATE "trigger" SET sensor = $2, sensor_ref = $3
                WHERE ref = $1 AND (sensor IS DISTINCT FROM $2 OR sensor_ref IS DISTINCT FROM $3)
                "#,
            )
            .bind(trigger)
            .bind(sensor)
            .bind(sensor_ref);
            self.unit.execute(query).await.during(during)?;
        }
        Ok(())
    }
}
