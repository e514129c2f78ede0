//! The packs of the sensors, where they come through the API.

use attune_model::SensorId;
use attune_store::DesiredSensor;

use super::Dispatcher;
use super::compare::{Known, asked};
use crate::supervisor::Phase;
use crate::target::Target;

impl Known {
    /// Looks whether messages about packs were lost.
    pub(super) async fn follow_registrations(&self) -> Result<(), String> {
        let context = self.context();
        let Some(registrations) = context.registrations() else { return Ok(()) };
        // What is new is looked at in this comparison.
        let _is_news = registrations.follow(&asked(context, context.store.pack_stamps()).await?);
        Ok(())
    }

    /// Has the packs of these sensors fetched, those that changed fetched again, and those that are gone removed as soon as
    /// their sensors are.
    pub(super) async fn follow_packs(&self, desired: &[DesiredSensor]) -> Result<(), String> {
        let context = self.context();
        let Some(packs) = &context.packs else { return Ok(()) };
        let stamps = asked(context, context.store.pack_stamps()).await?;
        packs.follow(&stamps, desired.iter().filter_map(|desired| desired.sensor.pack_ref.as_deref()));
        for pack_ref in packs.gone(&stamps) {
            let own = self.owners.iter().filter(|(owned, _)| owned.as_ref() == Some(&pack_ref));
            let statuses: Vec<_> = own.map(|(_, status)| status.clone()).collect();
            packs.remove(&pack_ref, async move {
                for mut status in statuses {
                    // An error means that its supervisor is gone.
                    drop(status.wait_for(|status| status.phase == Phase::Idle).await);
                }
            });
        }
        Ok(())
    }
}

impl Dispatcher {
    /// Whether the process of a sensor goes on as it is until its pack has come: one restart is enough for both.
    pub(super) fn has_to_wait(&self, sensor: SensorId, target: &Target) -> bool {
        let is_on_its_way = target.pack.as_ref().is_some_and(|pack| !pack.borrow().is_settled);
        is_on_its_way && self.owners.get(&sensor).is_some_and(|owner| owner.wish.borrow().target().is_some())
    }
}
