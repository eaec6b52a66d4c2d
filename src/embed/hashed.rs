use rust_stemmers::{Algorithm, Stemmer};

use super::{Embed, Error};

const DIMENSIONS: usize = 256;

/// A deterministic embedder without a model, **for tests only**: word stems and letter triples hashed into a vector.
/// Texts that share words are near, whatever they mean. Nothing in production makes one.
pub struct Hashed {
    stemmer: Stemmer,
    version: String,
}

impl Hashed {
    pub fn versioned(version: &str) -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English), version: version.to_owned() }
    }

    fn vector(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.0; DIMENSIONS];
        // No text is without direction: the empty one has this.
        vector[0] = 0.1;
        for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            let stem = self.stemmer.stem(word);
            vector[bucket(stem.as_bytes())] += 1.0;
            for triple in stem.as_bytes().windows(3) {
                vector[bucket(triple)] += 0.2;
            }
        }
        let length = vector.iter().map(|x: &f32| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
        vector
    }
}

impl Default for Hashed {
    fn default() -> Self {
        Self::versioned("hashed/1")
    }
}

impl Embed for Hashed {
    fn version(&self) -> &str {
        &self.version
    }

    fn embed(&mut self, text: &str) -> Result<Vec<f32>, Error> {
        Ok(self.vector(text))
    }
}

/// FNV-1a, because the standard hasher may change between releases.
fn bucket(bytes: &[u8]) -> usize {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    (hash % DIMENSIONS as u64) as usize
}
