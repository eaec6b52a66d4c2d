//! What of a graph is ready, what is done, and which way through it takes longest.

use std::collections::HashMap;
use std::time::Duration;

use super::dag::{Dag, TaskId, end, start};

/// The state of one run over a graph. It decides; running the tasks is the caller's job.
#[derive(Debug, Clone)]
pub struct Schedule<'a> {
    dag: &'a Dag,
    index: HashMap<&'a TaskId, usize>,
    waits_for: Vec<u32>,
    ready: Vec<usize>,
    open: usize,
}

impl<'a> Schedule<'a> {
    pub fn new(dag: &'a Dag) -> Self {
        let mut schedule = Self {
            dag,
            index: dag.tasks().iter().enumerate().map(|(i, task)| (&task.id, i)).collect(),
            waits_for: dag.moments().waits_for.clone(),
            ready: vec![],
            open: dag.tasks().len(),
        };
        let first = (0..dag.tasks().len()).filter(|&i| schedule.waits_for[start(i)] == 0).map(start).collect();
        schedule.pass(first);
        schedule
    }

    /// Takes the tasks that may start now. Each is handed out once, in the order of the graph.
    pub fn take_ready(&mut self) -> Vec<&'a TaskId> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_unstable();
        ready.into_iter().map(|i| &self.dag.tasks()[i].id).collect()
    }

    /// Marks a task that was handed out as ended. What waited only for it becomes ready.
    pub fn complete(&mut self, task: &TaskId) {
        if let Some(&i) = self.index.get(task)
            && !self.dag.is_group(i)
            && self.waits_for[end(i)] == 0
        {
            // One waiter too few can't happen twice: the end is marked as passed.
            self.waits_for[end(i)] = u32::MAX;
            self.pass_end(i);
        }
    }

    /// True once every task, groups too, has ended.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    fn pass_end(&mut self, task: usize) {
        self.open -= 1;
        let mut freed = vec![];
        self.free_after(end(task), &mut freed);
        self.pass(freed);
    }

    /// Starts what is free; the ends of groups come by themselves, those of work by [`Self::complete`].
    fn pass(&mut self, mut moments: Vec<usize>) {
        while let Some(moment) = moments.pop() {
            let task = moment / 2;
            if moment == start(task) {
                if !self.dag.is_group(task) {
                    self.ready.push(task);
                }
                self.free_after(moment, &mut moments);
            } else if self.dag.is_group(task) {
                self.open -= 1;
                self.free_after(moment, &mut moments);
            }
        }
    }

    fn free_after(&mut self, moment: usize, freed: &mut Vec<usize>) {
        for &next in &self.dag.moments().after[moment] {
            let waits = &mut self.waits_for[next as usize];
            *waits -= 1;
            if *waits == 0 {
                freed.push(next as usize);
            }
        }
    }
}

/// The tasks on the longest way through the graph by `duration`, first to last, and how long it takes.
pub fn critical_path(dag: &Dag, duration: impl Fn(&TaskId) -> Duration) -> (Vec<TaskId>, Duration) {
    let moments = dag.moments();
    let count = dag.tasks().len();
    let mut at = vec![(Duration::ZERO, None); 2 * count];
    let mut waits_for = moments.waits_for.clone();
    let mut free: Vec<usize> = (0..2 * count).filter(|&m| waits_for[m] == 0).collect();
    let mut last = 0;
    while let Some(moment) = free.pop() {
        let task = moment / 2;
        if at[moment].0 >= at[last].0 {
            last = moment;
        }
        let works = moment == start(task) && !dag.is_group(task);
        for &next in &moments.after[moment] {
            let next = next as usize;
            let takes = if works && next == end(task) { duration(&dag.tasks()[task].id) } else { Duration::ZERO };
            let then = at[moment].0 + takes;
            if then >= at[next].0 {
                at[next] = (then, Some(moment));
            }
            waits_for[next] -= 1;
            if waits_for[next] == 0 {
                free.push(next);
            }
        }
    }
    let total = at[last].0;
    let mut path = vec![];
    let mut step = Some(last);
    while let Some(moment) = step {
        let task = moment / 2;
        if moment == end(task) && !dag.is_group(task) {
            path.push(dag.tasks()[task].id.clone());
        }
        step = at[moment].1;
    }
    path.reverse();
    (path, total)
}
