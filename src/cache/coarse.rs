//! Vectors in 8 bits a dimension, found through one bit a dimension.
//!
//! A graph of neighbours (HNSW) would find them too, but it has to be built, saved, mended after every removal, and takes as
//! much memory as the vectors. Reading one bit of each dimension of every row is a few megabytes for 100,000 rows: a fraction
//! of a millisecond, whatever was removed, with nothing to build. The rows whose signs are nearest are compared in 8 bits, and
//! the nearest of those in full: the rows themselves lie in a file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::index::{Best, dot};

/// Rows whose signs are nearest, of which the nearest is sought: at least so many, and one in a hundred and twenty-eight. Of
/// 21,000 like those of a model, the nearest was never behind 64 others.
const SHORTLIST: usize = 512;
/// More than are asked for are compared in full: so many may be out of order in 8 bits.
const SPARE: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Coarse {
    dimensions: usize,
    /// What the rows have in common. Without it, the signs of most dimensions would say the same of all.
    centre: Vec<f32>,
    /// One bit for each dimension: whether it is above the centre's.
    signs: Vec<u64>,
    /// Eight bits for each dimension, in steps of the row's own size.
    levels: Vec<i8>,
    steps: Vec<f32>,
    /// The rows in full, in a file without a name that goes with this process. `None` where there could be none.
    rows: Option<File>,
    /// How many rows the centre was taken of.
    centred: usize,
}

impl Coarse {
    pub(super) fn of(dimensions: usize, rows: &[f32]) -> Self {
        let file = tempfile::tempfile();
        if let Err(error) = &file {
            tracing::warn!(%error, "vectors are compared in 8 bits alone: there is no file for them");
        }
        let mut coarse = Self { dimensions, centre: vec![0.0; dimensions], rows: file.ok(), ..Self::default() };
        rows.chunks_exact(dimensions).for_each(|row| coarse.push(row));
        coarse.find_centre();
        coarse
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// What a row takes in memory: its levels, their step and its signs.
    pub(super) fn row_bytes(&self) -> usize {
        self.dimensions + size_of::<f32>() + self.words() * size_of::<u64>()
    }

    pub(super) fn push(&mut self, row: &[f32]) {
        let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        let place = self.len();
        self.in_file(|file, size| file.write_all_at(&bytes, (place * size) as u64));
        let most = row.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
        let step = most / 127.0;
        self.levels.extend(row.iter().map(|x| (x / step).round() as i8));
        self.steps.push(step);
        let signs = self.signs_of(row);
        self.signs.extend(signs);
        if self.len() >= 2 * self.centred && self.centred > 0 {
            self.find_centre();
        }
    }

    pub(super) fn swap_remove(&mut self, place: usize) {
        let (last, words) = (self.len() - 1, self.words());
        self.in_file(|file, size| {
            let mut row = vec![0; size];
            file.read_exact_at(&mut row, (last * size) as u64)?;
            file.write_all_at(&row, (place * size) as u64)
        });
        self.steps.swap_remove(place);
        self.levels.copy_within(last * self.dimensions.., place * self.dimensions);
        self.levels.truncate(last * self.dimensions);
        self.signs.copy_within(last * words.., place * words);
        self.signs.truncate(last * words);
    }

    /// The `count` nearest whose cosine is at least `least`, nearest first.
    pub(super) fn nearest(&self, query: &[f32], count: usize, least: f32) -> Vec<(usize, f32)> {
        let signs = self.signs_of(query);
        let wanted = SHORTLIST.max(self.len() / 128).max(4 * count);
        let mut coarse = Best::new(count + SPARE, least - OFF);
        for place in shortlist(&self.signs, &signs, wanted) {
            let levels = &self.levels[place * self.dimensions..][..self.dimensions];
            coarse.offer(place, self.steps[place] * multiply(levels, query));
        }
        let mut best = Best::new(count, least);
        let mut bytes = vec![0; self.dimensions * 4];
        for (place, similarity) in coarse.into_vec() {
            let at = (place * bytes.len()) as u64;
            let read = self.rows.as_ref().map(|file| file.read_exact_at(&mut bytes, at));
            let similarity = match read {
                Some(Ok(())) => dot(query, &floats(&bytes)),
                Some(Err(_)) | None => similarity,
            };
            best.offer(place, similarity);
        }
        best.into_vec()
    }

    /// A file that can't be written is no file: its rows would be others'.
    fn in_file(&mut self, act: impl Fn(&File, usize) -> std::io::Result<()>) {
        if let Some(Err(error)) = self.rows.as_ref().map(|file| act(file, self.dimensions * 4)) {
            tracing::warn!(%error, "vectors are compared in 8 bits alone: their file can't be written");
            self.rows = None;
        }
    }

    fn words(&self) -> usize {
        self.dimensions.div_ceil(64)
    }

    fn signs_of(&self, row: &[f32]) -> Vec<u64> {
        let mut signs = vec![0; self.words()];
        for (i, (x, centre)) in row.iter().zip(&self.centre).enumerate() {
            signs[i / 64] |= u64::from(x > centre) << (i % 64);
        }
        signs
    }

    /// Of what is here now: as the rows become more, what they have in common moves.
    fn find_centre(&mut self) {
        let mut sums = vec![0.0_f64; self.dimensions];
        for (levels, step) in self.levels.chunks_exact(self.dimensions).zip(&self.steps) {
            sums.iter_mut().zip(levels).for_each(|(sum, level)| *sum += f64::from(f32::from(*level) * step));
        }
        let rows = self.len().max(1) as f64;
        self.centre = sums.into_iter().map(|sum| (sum / rows) as f32).collect();
        self.centred = self.len();
        let mut signs = Vec::with_capacity(self.signs.len());
        for (levels, step) in self.levels.chunks_exact(self.dimensions).zip(&self.steps) {
            let row: Vec<f32> = levels.iter().map(|level| f32::from(*level) * step).collect();
            signs.extend(self.signs_of(&row));
        }
        self.signs = signs;
    }
}

/// How far a cosine in 8 bits may be off.
const OFF: f32 = 0.004;

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// The places of the `wanted` rows whose signs differ least from these, and of all that differ as little as the last.
fn shortlist(rows: &[u64], signs: &[u64], wanted: usize) -> Vec<usize> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("popcnt") && is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "popcnt,avx2")]
        fn fast(rows: &[u64], signs: &[u64], wanted: usize) -> Vec<usize> {
            listed(rows, signs, wanted)
        }
        #[allow(unsafe_code, reason = "the only way to use instructions that not every processor has")]
        // SAFETY: this processor has them.
        return unsafe { fast(rows, signs, wanted) };
    }
    listed(rows, signs, wanted)
}

#[inline(always)]
fn listed(rows: &[u64], signs: &[u64], wanted: usize) -> Vec<usize> {
    // How many listed rows differ in so many signs. The limit sinks as there are enough below it.
    let mut counts = vec![0_usize; signs.len() * 64 + 1];
    let (mut limit, mut within) = (counts.len() - 1, 0);
    let mut listed: Vec<(u32, u32)> = Vec::with_capacity(4 * wanted);
    for (place, row) in rows.chunks_exact(signs.len()).enumerate() {
        let differ = row.iter().zip(signs).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        if differ as usize > limit {
            continue;
        }
        listed.push((place as u32, differ));
        counts[differ as usize] += 1;
        within += 1;
        while within - counts[limit] >= wanted {
            within -= counts[limit];
            limit -= 1;
        }
    }
    listed.into_iter().filter(|(_, differ)| *differ as usize <= limit).map(|(place, _)| place as usize).collect()
}

fn multiply(levels: &[i8], query: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn fast(levels: &[i8], query: &[f32]) -> f32 {
            multiplied(levels, query)
        }
        #[allow(unsafe_code, reason = "the only way to use instructions that not every processor has")]
        // SAFETY: this processor has them.
        return unsafe { fast(levels, query) };
    }
    multiplied(levels, query)
}

/// In eight lanes, so that the compiler can use vector instructions.
#[inline(always)]
fn multiplied(levels: &[i8], query: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (levels, query) = (levels.chunks_exact(8), query.chunks_exact(8));
    let rest: f32 = levels.remainder().iter().zip(query.remainder()).map(|(x, y)| f32::from(*x) * y).sum();
    for (levels, query) in levels.zip(query) {
        for (lane, (x, y)) in lanes.iter_mut().zip(levels.iter().zip(query)) {
            *lane += f32::from(*x) * y;
        }
    }
    lanes.iter().sum::<f32>() + rest
}
