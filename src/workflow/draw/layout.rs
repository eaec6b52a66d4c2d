//! Places a graph in layers (Sugiyama): each task behind all that it waits for, few crossings, straight long edges.

use std::collections::HashMap;

/// More bends than this are not worth the time; long edges then go straight.
const MOST_BENDS: usize = 20_000;
const SWEEPS: usize = 16;

/// What takes room across the layers, in units of one task with its gap.
const TASK: f64 = 1.0;
const BEND: f64 = 0.3;

pub(super) struct Layout {
    /// Of each task: its layer, and where it is across.
    pub(super) tasks: Vec<(usize, f64)>,
    /// Of each edge: where it bends on the layers between its ends.
    pub(super) bends: Vec<Vec<(usize, f64)>>,
    pub(super) layers: usize,
    /// From the middle of the first task across to that of the last.
    pub(super) width: f64,
}

/// `edges` have no circle; one that has is drawn all the same, with edges that go back.
pub(super) fn place(count: usize, edges: &[(usize, usize)]) -> Layout {
    let layer = layers(count, edges);
    let depth = layer.iter().max().map_or(0, |last| last + 1);
    // Tasks first, then the bends of long edges.
    let mut level = layer.clone();
    let mut chains: Vec<Vec<usize>> = vec![];
    let long: usize = edges.iter().map(|&(a, b)| layer[b].saturating_sub(layer[a] + 1)).sum();
    for &(from, to) in edges {
        let between = if long <= MOST_BENDS { layer[from] + 1..layer[to] } else { 0..0 };
        chains.push(
            between
                .map(|at| {
                    level.push(at);
                    level.len() - 1
                })
                .collect(),
        );
    }
    let mut before: Vec<Vec<usize>> = vec![vec![]; level.len()];
    let mut after = before.clone();
    for (&(from, to), chain) in edges.iter().zip(&chains) {
        let way: Vec<usize> = std::iter::once(from).chain(chain.iter().copied()).chain([to]).collect();
        for pair in way.windows(2) {
            after[pair[0]].push(pair[1]);
            before[pair[1]].push(pair[0]);
        }
    }
    let mut rows: Vec<Vec<usize>> = vec![vec![]; depth];
    for item in first_order(&level, &after, &before) {
        rows[level[item]].push(item);
    }
    untangle(&mut rows, &before, &after);
    let across = straighten(&rows, &before, &after, count);
    // A bend may lie farther out than any task, but it needs only its own room there.
    let room = |item: usize| if item < count { 0.0 } else { (TASK - BEND) / 2.0 };
    let least = across.iter().enumerate().map(|(item, at)| at + room(item)).fold(f64::INFINITY, f64::min);
    let most = across.iter().enumerate().map(|(item, at)| at - room(item)).fold(f64::NEG_INFINITY, f64::max);
    Layout {
        tasks: (0..count).map(|task| (layer[task], across[task] - least)).collect(),
        bends: chains
            .iter()
            .map(|chain| chain.iter().map(|&bend| (level[bend], across[bend] - least)).collect())
            .collect(),
        layers: depth,
        width: if count == 0 { 0.0 } else { most - least },
    }
}

/// Behind the last of what it waits for; what waits for nothing stands just before the first who needs it.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut after = vec![vec![]; count];
    let mut waits = vec![0; count];
    for &(from, to) in edges {
        after[from].push(to);
        waits[to] += 1;
    }
    let first: Vec<usize> = (0..count).filter(|&task| waits[task] == 0).collect();
    let mut layer = vec![0usize; count];
    let mut free = first.clone();
    while let Some(task) = free.pop() {
        for &next in &after[task] {
            layer[next] = layer[next].max(layer[task] + 1);
            waits[next] -= 1;
            if waits[next] == 0 {
                free.push(next);
            }
        }
    }
    for task in first {
        if let Some(next) = after[task].iter().map(|&next| layer[next]).min() {
            layer[task] = next.saturating_sub(1);
        }
    }
    layer
}

/// Depth first, so that what hangs together begins together.
fn first_order(level: &[usize], after: &[Vec<usize>], before: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![false; level.len()];
    let mut order = vec![];
    let mut roots: Vec<usize> = (0..level.len()).collect();
    roots.sort_by_key(|&item| (!before[item].is_empty(), level[item], item));
    for root in roots {
        let mut open = vec![root];
        while let Some(item) = open.pop() {
            if !std::mem::replace(&mut seen[item], true) {
                order.push(item);
                open.extend(after[item].iter().rev());
            }
        }
    }
    order
}

/// Sorts each layer by where its neighbours stand, to and fro, and keeps the best.
fn untangle(rows: &mut [Vec<usize>], before: &[Vec<usize>], after: &[Vec<usize>]) {
    let mut best = (crossings(rows, after), rows.to_vec());
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let neighbours = if down { before } else { after };
        let order: Vec<usize> =
            if down { (1..rows.len()).collect() } else { (0..rows.len().max(1) - 1).rev().collect() };
        for row in order {
            let beside = if down { row - 1 } else { row + 1 };
            let place: HashMap<usize, f64> =
                rows[beside].iter().enumerate().map(|(i, &item)| (item, i as f64)).collect();
            let mut keyed: Vec<(f64, usize)> = rows[row]
                .iter()
                .enumerate()
                .map(|(i, &item)| {
                    let known: Vec<f64> = neighbours[item].iter().filter_map(|n| place.get(n).copied()).collect();
                    let scale = rows[beside].len() as f64 / rows[row].len() as f64;
                    let own = i as f64 * scale;
                    (if known.is_empty() { own } else { known.iter().sum::<f64>() / known.len() as f64 }, item)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[row] = keyed.into_iter().map(|(_, item)| item).collect();
        }
        let now = crossings(rows, after);
        if now < best.0 {
            best = (now, rows.to_vec());
        }
    }
    rows.clone_from_slice(&best.1);
}

/// Counted with a Fenwick tree: pairs of edges between two layers whose ends are in the other order.
fn crossings(rows: &[Vec<usize>], after: &[Vec<usize>]) -> usize {
    let mut count = 0;
    for pair in rows.windows(2) {
        let place: HashMap<usize, usize> = pair[1].iter().enumerate().map(|(i, &item)| (item, i)).collect();
        let mut tree = vec![0usize; pair[1].len() + 1];
        let mut total = 0;
        for &item in &pair[0] {
            let mut ends: Vec<usize> = after[item].iter().filter_map(|n| place.get(n).copied()).collect();
            ends.sort_unstable();
            for &end in &ends {
                let (mut at, mut not_beyond) = (end + 1, 0);
                while at > 0 {
                    not_beyond += tree[at];
                    at &= at - 1;
                }
                count += total - not_beyond;
            }
            for end in ends {
                total += 1;
                let mut at = end + 1;
                while at < tree.len() {
                    tree[at] += 1;
                    at += at & at.wrapping_neg();
                }
            }
        }
    }
    count
}

/// Moves each item towards the middle of its neighbours as far as the order and the gaps of its layer allow: the nearest
/// that they do, in least squares.
fn straighten(rows: &[Vec<usize>], before: &[Vec<usize>], after: &[Vec<usize>], tasks: usize) -> Vec<f64> {
    let items = before.len();
    let size = |item: usize| if item < tasks { TASK } else { BEND };
    // A long edge is straight between its bends first of all.
    let pull = |a: usize, b: usize| match (a < tasks, b < tasks) {
        (true, true) => 1.0,
        (false, false) => 8.0,
        _ => 2.0,
    };
    let mut across = vec![0.0; items];
    let offsets: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            let mut at = 0.0;
            let mut last: Option<usize> = None;
            row.iter()
                .map(|&item| {
                    at += last.map_or(0.0, |last| (size(last) + size(item)) / 2.0);
                    last = Some(item);
                    at
                })
                .collect()
        })
        .collect();
    let widest = offsets.iter().filter_map(|o| o.last()).copied().fold(0.0, f64::max);
    for (row, offset) in rows.iter().zip(&offsets) {
        let slack = (widest - offset.last().copied().unwrap_or_default()) / 2.0;
        for (&item, at) in row.iter().zip(offset) {
            across[item] = at + slack;
        }
    }
    for sweep in 0..5 * SWEEPS {
        let order: Vec<usize> =
            if sweep % 2 == 0 { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        // At last by all neighbours, before that by those of the side that it comes from.
        let last = sweep >= SWEEPS;
        for row in order {
            let wanted: Vec<(f64, f64)> = rows[row]
                .iter()
                .map(|&item| {
                    let (near, far) = if sweep % 2 == 0 { (before, after) } else { (after, before) };
                    let beyond: &[usize] = if last || near[item].is_empty() { &far[item] } else { &[] };
                    let (mut sum, mut weight) = (0.0, 0.0);
                    for &other in near[item].iter().chain(beyond) {
                        let pull = pull(item, other);
                        sum += pull * across[other];
                        weight += pull;
                    }
                    if weight > 0.0 { (sum / weight, weight) } else { (across[item], 0.1) }
                })
                .collect();
            for (&item, at) in rows[row].iter().zip(nearest(&wanted, &offsets[row])) {
                across[item] = at;
            }
        }
    }
    across
}

/// Pool adjacent violators: the positions nearest to the wanted ones that keep at least the gaps of `offsets`.
fn nearest(wanted: &[(f64, f64)], offsets: &[f64]) -> Vec<f64> {
    // (mean, weight, how many)
    let mut pools: Vec<(f64, f64, usize)> = vec![];
    for ((want, weight), offset) in wanted.iter().zip(offsets) {
        let mut pool = (want - offset, *weight, 1);
        while let Some(&(mean, heavy, count)) = pools.last()
            && mean > pool.0
        {
            pools.pop();
            pool = ((mean * heavy + pool.0 * pool.1) / (heavy + pool.1), heavy + pool.1, count + pool.2);
        }
        pools.push(pool);
    }
    let means = pools.into_iter().flat_map(|(mean, _, count)| std::iter::repeat_n(mean, count));
    means.zip(offsets).map(|(mean, offset)| mean + offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_stands_behind_all_that_it_waits_for() {
        let edges = [(0, 1), (1, 2), (0, 2), (3, 2)];
        let layout = place(4, &edges);
        assert_eq!(layout.tasks.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1, 2, 1]);
        assert_eq!(layout.bends[2].len(), 1, "the edge over a layer bends there");
        assert_eq!(layout.layers, 3);
    }

    #[test]
    fn tasks_of_a_layer_do_not_overlap_and_chains_are_straight() {
        let edges = [(0, 2), (1, 3), (0, 3), (2, 4), (3, 5), (4, 6), (5, 6)];
        let layout = place(7, &edges);
        for a in 0..7 {
            for b in 0..a {
                let ((la, xa), (lb, xb)) = (layout.tasks[a], layout.tasks[b]);
                assert!(la != lb || (xa - xb).abs() > 0.99, "{a} and {b} overlap");
            }
        }
        let chain = place(4, &[(0, 1), (1, 2), (2, 3)]);
        assert!(chain.tasks.iter().all(|t| t.1.abs() < 1e-6), "{:?}", chain.tasks);
    }

    #[test]
    fn edges_that_need_not_cross_do_not() {
        // Two chains whose tasks are given in turns, the second upside down.
        let edges = [(0, 5), (1, 4), (4, 2), (5, 3)];
        let layout = place(6, &edges);
        let across = |task: usize| layout.tasks[task].1;
        let sides = [(0, 1), (5, 4), (3, 2)].map(|(a, b)| across(a) < across(b));
        assert!(sides.iter().all(|&side| side == sides[0]), "{:?}", layout.tasks);
    }

    #[test]
    fn a_circle_ends_too() {
        assert_eq!(place(2, &[(0, 1), (1, 0)]).tasks.len(), 2);
        assert_eq!(place(0, &[]).layers, 0);
    }
}
