//! Calls of one kind that come while another one is under way go to the server together, as one statement. A busy agent then has
//! fewer statements, commits and answers than calls; a call that comes alone waits for nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_lifecycle::Tasks;
use attune_store::StoreError;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::error::{leaves_connection_usable, shared};
use crate::pool::Pool;

/// Most calls of one statement.
const MOST: usize = 64;

/// A statement that takes longer holds up nobody any more.
const HELD_UP_FOR: Duration = Duration::from_millis(100);

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<A> {
    /// It was answered.
    Is(A),
    /// The statement did nothing for it: it has to ask by itself.
    Alone,
    /// The statement vanished, and nobody knows what it did.
    Lost,
}

/// Runs one statement for several calls and says for each in turn what became of it.
pub(crate) type Work<C, A> = fn(Pool, Vec<C>) -> BoxFuture<'static, Vec<Answer<A>>>;

type Reply<A> = oneshot::Sender<Answer<A>>;

/// Calls that wait for each other. Clones share them.
pub(crate) struct Together<C, A> {
    work: Work<C, A>,
    state: Arc<Mutex<State<C, A>>>,
    /// Each ends by the limits of its statement.
    tasks: Tasks,
}

struct State<C, A> {
    waiting: Vec<(C, Reply<A>)>,
    is_busy: bool,
}

impl<C: Send + 'static, A: Send + 'static> Together<C, A> {
    pub(crate) fn new(work: Work<C, A>) -> Self {
        let state = State { waiting: Vec::new(), is_busy: false };
        Self { work, state: Arc::new(Mutex::new(state)), tasks: Tasks::default() }
    }

    /// Hands a call in and waits for what becomes of it. Dropped before its statement began, it is not made.
    pub(crate) async fn call(&self, pool: &Pool, call: C) -> Answer<A> {
        let (reply, answer) = oneshot::channel();
        let is_first = {
            let mut state = self.state();
            state.waiting.push((call, reply));
            !std::mem::replace(&mut state.is_busy, true)
        };
        if is_first {
            self.begin(pool);
        }
        answer.await.unwrap_or(Answer::Lost)
    }

    /// Not as a part of a call: who drops that must not take the answers of the others along.
    fn begin(&self, pool: &Pool) {
        self.tasks.spawn(self.clone().run(pool.clone()));
    }

    async fn run(self, pool: Pool) {
        let mut unfinished = Unfinished(Some(&self));
        while let Some((calls, replies)) = self.next() {
            let mut work = (self.work)(pool.clone(), calls);
            if let Ok(answers) = timeout(HELD_UP_FOR, &mut work).await {
                tell(replies, answers);
                continue;
            }
            unfinished.0 = None;
            self.hand_over(&pool);
            return tell(replies, work.await);
        }
        unfinished.0 = None;
    }

    /// The statement under way takes too long: others do not wait for it.
    fn hand_over(&self, pool: &Pool) {
        let mut state = self.state();
        state.is_busy = !state.waiting.is_empty();
        if state.is_busy {
            self.begin(pool);
        }
    }

    /// Those of the next statement; none when nobody waits, and then the next call is the first again.
    fn next(&self) -> Option<(Vec<C>, Vec<Reply<A>>)> {
        let mut state = self.state();
        state.waiting.retain(|(_, reply)| !reply.is_closed());
        let count = state.waiting.len().min(MOST);
        state.is_busy = count > 0;
        state.is_busy.then(|| state.waiting.drain(..count).unzip())
    }

    fn state(&self) -> MutexGuard<'_, State<C, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To each call its row, by the id in its first column. Where the server refused the statement as a whole, nothing of it was
/// done, and each call finds out by itself whether that was about it.
pub(crate) fn answers<C, A>(
    calls: &[C],
    asked: &BTreeMap<i64, usize>,
    rows: Result<Vec<PgRow>, sqlx::Error>,
    read: impl Fn(&PgRow, &C) -> Result<A, StoreError>,
    operation: impl Fn(&C) -> String,
) -> Vec<Answer<Result<A, StoreError>>> {
    let mut answers: Vec<_> = calls.iter().map(|_call| Answer::Alone).collect();
    match rows {
        Ok(rows) => {
            for row in &rows {
                if let Some(&at) = row.try_get(0).ok().and_then(|id: i64| asked.get(&id)) {
                    answers[at] = Answer::Is(read(row, &calls[at]));
                }
            }
        }
        Err(error) if leaves_connection_usable(&error) => {}
        Err(error) => {
            let error = Arc::new(error);
            for &at in asked.values() {
                answers[at] = Answer::Is(Err(shared(&error, operation(&calls[at]))));
            }
        }
    }
    answers
}

/// The error of a call that was [`Answer::Lost`].
pub(crate) fn lost(operation: String) -> StoreError {
    StoreError::Unavailable { operation, source: "the statement was given up".into() }
}

/// To each its answer. Whoever was dropped meanwhile has the guards of its next attempt.
fn tell<A>(replies: Vec<Reply<A>>, answers: Vec<Answer<A>>) {
    let mut answers = answers.into_iter();
    for reply in replies {
        drop(reply.send(answers.next().unwrap_or(Answer::Lost)));
    }
}

/// Should a statement panic, its runtime end, or both: those who wait are told, and the next call begins anew.
struct Unfinished<'a, C: Send + 'static, A: Send + 'static>(Option<&'a Together<C, A>>);

impl<C: Send + 'static, A: Send + 'static> Drop for Unfinished<'_, C, A> {
    fn drop(&mut self) {
        if let Some(together) = self.0 {
            let mut state = together.state();
            state.waiting.clear();
            state.is_busy = false;
        }
    }
}

impl<C, A> Clone for Together<C, A> {
    fn clone(&self) -> Self {
        Self { work: self.work, state: Arc::clone(&self.state), tasks: self.tasks.clone() }
    }
}

impl<C, A> fmt::Debug for Together<C, A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Together").finish_non_exhaustive()
    }
}
