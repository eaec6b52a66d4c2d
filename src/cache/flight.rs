//! One flight per key in this process: of those who ask for the same at once one does the work and the others wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::record::Digest;

/// What is being made now, by exact key. Clones are the same flights.
#[derive(Debug)]
pub struct Flights<T>(Arc<Mutex<Waiting<T>>>);

type Waiting<T> = HashMap<Digest, watch::Receiver<Option<T>>>;

/// Which of those who asked for the same this one is.
pub enum Joined<T> {
    /// Nobody is at it: this one is now.
    Leads(Flight<T>),
    Follows(Follower<T>),
}

/// The lead. Dropping it without an outcome lets one of the followers lead.
pub struct Flight<T> {
    key: Digest,
    flights: Flights<T>,
    outcome: watch::Sender<Option<T>>,
}

/// Waits for another's outcome.
pub struct Follower<T>(watch::Receiver<Option<T>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Flights<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Flights<T> {
    pub fn join(&self, key: Digest) -> Joined<T> {
        let mut waiting = self.waiting();
        if let Some(outcome) = waiting.get(&key) {
            return Joined::Follows(Follower(outcome.clone()));
        }
        let (outcome, outcomes) = watch::channel(None);
        waiting.insert(key, outcomes);
        Joined::Leads(Flight { key, flights: self.clone(), outcome })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Flight<T> {
    /// Gives the followers the outcome. What is asked for from now on is a flight of its own.
    pub fn land(self, outcome: T) {
        self.outcome.send_replace(Some(outcome));
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.flights.waiting().remove(&self.key);
    }
}

impl<T: Clone> Follower<T> {
    /// `None` where the one that led has gone without an outcome.
    pub async fn outcome(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Digest = [7; 32];

    fn lead(flights: &Flights<u32>) -> Flight<u32> {
        match flights.join(KEY) {
            Joined::Leads(flight) => flight,
            Joined::Follows(_) => panic!("another leads"),
        }
    }

    fn follow(flights: &Flights<u32>) -> Follower<u32> {
        match flights.join(KEY) {
            Joined::Leads(_) => panic!("nobody leads"),
            Joined::Follows(follower) => follower,
        }
    }

    #[tokio::test]
    async fn those_who_came_meanwhile_get_the_outcome_and_those_who_come_later_do_not() {
        let flights = Flights::default();
        let flight = lead(&flights);
        let followers: Vec<_> = (0..3).map(|_| tokio::spawn(follow(&flights).outcome())).collect();
        assert!(matches!(flights.join([8; 32]), Joined::Leads(_)), "another key is another flight");
        flight.land(5);
        for follower in followers {
            assert_eq!(follower.await.unwrap(), Some(5));
        }
        drop(lead(&flights));
    }

    #[tokio::test]
    async fn a_lead_that_goes_without_an_outcome_passes_to_one_of_the_followers() {
        let flights = Flights::default();
        let flight = lead(&flights);
        let (one, other) = (follow(&flights), follow(&flights));
        drop(flight);
        assert_eq!(one.outcome().await, None);
        let flight = lead(&flights);
        assert_eq!(other.outcome().await, None);
        let again = tokio::spawn(follow(&flights).outcome());
        flight.land(6);
        assert_eq!(again.await.unwrap(), Some(6));
    }
}
