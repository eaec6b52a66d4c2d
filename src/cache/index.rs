use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::coarse::Coarse;
use crate::domain::record::EntryId;

/// Above so many rows they are kept in 8 bits, in full in a file, and looked for by their signs. Reading all of them in full
/// takes a fifth of a millisecond here, at 10,000 half of one, which by their signs is a fifth again.
const EXACT: usize = 5_000;

/// The vectors of one scope. Up to [`EXACT`] are searched exactly; more take less memory and are found all the same.
#[derive(Debug, Default)]
pub(super) struct Index {
    dimensions: usize,
    rows: Rows,
    ids: Vec<EntryId>,
    /// Where in `ids` each stands.
    places: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
enum Rows {
    Exact(Vec<f32>),
    Coarse(Coarse),
}

impl Default for Rows {
    fn default() -> Self {
        Self::Exact(vec![])
    }
}

impl Index {
    /// False for a vector of another length than the others: it came from somewhere else and fits nothing here.
    pub(super) fn insert(&mut self, id: EntryId, vector: &[f32]) -> bool {
        if self.ids.is_empty() {
            (self.dimensions, self.rows) = (vector.len(), Rows::default());
        }
        if vector.is_empty() || vector.len() != self.dimensions || vector.iter().any(|x| !x.is_finite()) {
            return false;
        }
        self.remove(id);
        self.dimensions = vector.len();
        let place = self.ids.len() as u32;
        self.ids.push(id);
        let (ids, hasher) = (&self.ids, &self.hasher);
        self.places.insert_unique(hasher.hash_one(id), place, |place| hasher.hash_one(ids[*place as usize]));
        match &mut self.rows {
            Rows::Exact(rows) => {
                rows.extend_from_slice(vector);
                if self.ids.len() > EXACT {
                    self.rows = Rows::Coarse(Coarse::of(self.dimensions, rows));
                }
            }
            Rows::Coarse(rows) => rows.push(vector),
        }
        true
    }

    pub(super) fn remove(&mut self, id: EntryId) {
        let found = self.places.find_entry(self.hasher.hash_one(id), |place| self.ids[*place as usize] == id);
        let Ok(found) = found else { return };
        let (place, last) = (found.remove().0 as usize, self.ids.len() - 1);
        // The last one moves to where it stood.
        let moved = self.hasher.hash_one(self.ids[last]);
        if let Some(moved) = self.places.find_mut(moved, |place| *place as usize == last) {
            *moved = place as u32;
        }
        self.ids.swap_remove(place);
        match &mut self.rows {
            Rows::Exact(rows) => {
                rows.copy_within(last * self.dimensions.., place * self.dimensions);
                rows.truncate(last * self.dimensions);
            }
            Rows::Coarse(rows) => rows.swap_remove(place),
        }
    }

    /// What its vectors take in memory.
    pub(super) fn bytes(&self) -> usize {
        let row = match &self.rows {
            Rows::Exact(_) => self.dimensions * size_of::<f32>(),
            Rows::Coarse(rows) => rows.row_bytes(),
        };
        self.ids.len() * row
    }

    /// The `count` nearest whose cosine is at least `least`, nearest first.
    pub(super) fn nearest(&self, query: &[f32], count: usize, least: f32) -> Vec<(EntryId, f32)> {
        if query.len() != self.dimensions || self.dimensions == 0 || count == 0 {
            return vec![];
        }
        let best = match &self.rows {
            Rows::Exact(rows) => {
                let mut best = Best::new(count, least);
                rows.chunks_exact(self.dimensions)
                    .enumerate()
                    .for_each(|(place, row)| best.offer(place, dot(query, row)));
                best.into_vec()
            }
            Rows::Coarse(rows) => rows.nearest(query, count, least),
        };
        best.into_iter().map(|(place, similarity)| (self.ids[place], similarity)).collect()
    }
}

/// The best few of many, nearest first.
pub(super) struct Best {
    count: usize,
    least: f32,
    best: Vec<(usize, f32)>,
}

impl Best {
    pub(super) fn new(count: usize, least: f32) -> Self {
        // Whoever asks for all of them gets no more room than there are.
        Self { count, least, best: Vec::with_capacity(count.min(64) + 1) }
    }

    pub(super) fn offer(&mut self, place: usize, similarity: f32) {
        let full = self.best.len() == self.count;
        let worst = if full { self.best[self.count - 1].1 } else { self.least };
        if similarity >= worst && (!full || similarity > worst) {
            let at = self.best.partition_point(|(_, better)| *better >= similarity);
            self.best.insert(at, (place, similarity));
            self.best.truncate(self.count);
        }
    }

    pub(super) fn into_vec(self) -> Vec<(usize, f32)> {
        self.best
    }
}

/// In eight lanes, so that the compiler can use vector instructions: floats may not be reordered for it otherwise.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        for (lane, (x, y)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u128) -> EntryId {
        EntryId(uuid::Uuid::from_u128(n))
    }

    proptest! {
        #[test]
        fn finds_what_a_sort_of_everything_finds(
            rows in proptest::collection::vec(proptest::collection::vec(-1.0_f32..1.0, 11), 1..60),
            gone in proptest::collection::vec(0_usize..60, 0..20),
            count in 1_usize..8,
        ) {
            let mut index = Index::default();
            for (i, row) in rows.iter().enumerate() {
                prop_assert!(index.insert(id(i as u128), row));
            }
            for i in &gone {
                index.remove(id(*i as u128));
            }
            let query = &rows[0];
            let mut expected: Vec<(EntryId, f32)> = rows.iter().enumerate()
                .filter(|(i, _)| !gone.contains(i))
                .map(|(i, row)| (id(i as u128), dot(query, row)))
                .filter(|(_, s)| *s >= 0.1)
                .collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            expected.truncate(count);
            let found = index.nearest(query, count, 0.1);
            prop_assert_eq!(
                found.iter().map(|f| f.1).collect::<Vec<_>>(),
                expected.iter().map(|f| f.1).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_vector_that_does_not_fit_is_refused_and_a_second_one_replaces_the_first() {
        let mut index = Index::default();
        assert!(index.insert(id(1), &[1.0, 0.0]));
        assert!(!index.insert(id(2), &[1.0, 0.0, 0.0]), "another length");
        assert!(!index.insert(id(3), &[f32::NAN, 0.0]));
        assert!(index.insert(id(1), &[0.0, 1.0]));
        assert_eq!(index.nearest(&[0.0, 1.0], 5, 0.5), [(id(1), 1.0)]);
        assert!(index.nearest(&[0.0, 1.0, 0.0], 5, 0.5).is_empty());
    }

    /// Unit vectors as an embedding model makes them: all have a direction in common, many belong to groups, and some
    /// are paraphrases of others.
    fn like_embeddings(count: usize, seed: u64) -> Vec<Vec<f32>> {
        const DIMENSIONS: usize = 384;
        let mut state = seed;
        // A sum of twelve is near enough to a normal distribution.
        let mut normal = || {
            (0..12).fold(-6.0_f32, |sum, _| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum + (state >> 40) as f32 / (1_u64 << 24) as f32
            })
        };
        let mut fresh = |scale: f32| -> Vec<f32> { (0..DIMENSIONS).map(|_| normal() * scale).collect() };
        let common = fresh(0.5);
        let groups: Vec<Vec<f32>> = (0..200).map(|_| fresh(0.8)).collect();
        let mut made: Vec<Vec<f32>> = vec![];
        for n in 0..count {
            let own = fresh(0.7);
            let row: Vec<f32> = match made.get(n / 2).filter(|_| n % 3 == 0) {
                // A cosine of some 0.7 to 0.95 to an earlier one.
                Some(other) => {
                    let share = 0.3 + 0.7 * ((n / 3) % 10) as f32 / 10.0;
                    other.iter().zip(&own).map(|(x, y)| x * 13.6 + share * y).collect()
                }
                None => (0..DIMENSIONS).map(|i| common[i] + groups[n % 200][i] + own[i]).collect(),
            };
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            made.push(row.into_iter().map(|x| x / length).collect());
        }
        made
    }

    #[test]
    fn above_five_thousand_the_nearest_is_found_as_by_exact_search() {
        let rows = like_embeddings(10_050, 7);
        // Few are asked for: without optimisation each takes a tenth of a second. The bench asks for more.
        let (stored, asked) = rows.split_at(10_000);
        let mut index = Index::default();
        for (i, row) in stored.iter().enumerate() {
            assert!(index.insert(id(i as u128), row));
        }
        assert!(matches!(index.rows, Rows::Coarse(_)));
        // What was removed is not found, and what takes its place is.
        for gone in (0..stored.len()).step_by(50) {
            index.remove(id(gone as u128));
        }
        let (mut right, mut off, mut near) = (0, 0.0_f32, 0);
        for query in asked {
            let exact = stored.iter().enumerate().filter(|(i, _)| i % 50 != 0).map(|(i, row)| (i, dot(query, row)));
            let (nearest, similarity) = exact.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            let found = index.nearest(query, 16, -1.0);
            assert!(found.iter().all(|(found, _)| found.0.as_u128() % 50 != 0), "a removed row was found");
            off = off.max((found[0].1 - dot(query, &stored[found[0].0.0.as_u128() as usize])).abs());
            right += usize::from(found[0].0 == id(nearest as u128));
            near += usize::from(similarity > 0.7);
        }
        assert!(near > asked.len() / 5, "the queries are no paraphrases: {near}");
        assert!(off < 1e-6, "a cosine is off by {off}");
        assert!(right * 1_000 >= asked.len() * 995, "recall@1 is {right} of {}", asked.len());
    }

    #[test]
    fn ten_thousand_near_equal_texts_do_not_hide_each_other() {
        let base = like_embeddings(40, 3);
        let others = like_embeddings(10_000, 5);
        let mut index = Index::default();
        let mixed = |i: usize| -> Vec<f32> {
            let row: Vec<f32> = base[i % 40].iter().zip(&others[i]).map(|(x, y)| x + 0.15 * y).collect();
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.into_iter().map(|x| x / length).collect()
        };
        for i in 0..others.len() {
            index.insert(id(i as u128), &mixed(i));
        }
        for i in (0..others.len()).step_by(997) {
            assert_eq!(index.nearest(&mixed(i), 1, 0.5)[0].0, id(i as u128));
        }
    }
}
