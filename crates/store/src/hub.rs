//! What the hub needs: packs, events, enforcements, scheduling. Not used by agents.
