use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fastembed::{
    InitOptionsUserDefined, Pooling, QuantizationMode, TextEmbedding, TokenizerFiles, UserDefinedEmbeddingModel,
};
use ort::environment::Environment;

use super::assets::Assets;
use super::{Embed, Error, MODEL_VERSION};

/// Tokens that the model reads of a text; the rest is not seen.
const MAX_LENGTH: usize = 256;

/// ONNX Runtime allows one environment per process, for the process' life.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// all-MiniLM-L6-v2 (384 dimensions) on ONNX Runtime. Nothing is ever fetched: runtime, model and tokenizer are files.
pub struct FastEmbed {
    model: TextEmbedding,
}

impl FastEmbed {
    /// Every file is verified before it is opened; see [`Error::Missing`] and [`Error::Damaged`].
    pub fn load(assets: &Path, threads: usize) -> Result<Self, Error> {
        // All three before the first is used, so that the message names what is missing, not what broke over it.
        let pinned = Assets::pinned()?;
        let runtime = pinned.runtime.verified(assets)?;
        let model_file = pinned.model.verified(assets)?;
        let tokenizer = pinned.tokenizer.verified(assets)?;
        let read = |file: &Path| {
            fs::read(file).map_err(|source| Error::Read { file: file.to_owned(), source: Arc::new(source) })
        };
        let tokenizer = TokenizerFiles {
            tokenizer_file: read(&tokenizer)?,
            config_file: br#"{"pad_token_id":0}"#.to_vec(),
            special_tokens_map_file: b"{}".to_vec(),
            tokenizer_config_file: br#"{"model_max_length":512,"pad_token":"[PAD]"}"#.to_vec(),
        };
        let model = UserDefinedEmbeddingModel::new(read(&model_file)?, tokenizer)
            .with_pooling(Pooling::Mean)
            .with_quantization(QuantizationMode::Dynamic);
        let mut options = InitOptionsUserDefined::new()
            .with_environment(environment(&runtime)?)
            .with_max_length(MAX_LENGTH)
            .with_intra_threads(threads.max(1));
        if sums_may_overflow() {
            options = options.with_session_config("session.x64quantprecision", "1");
        }
        let model = TextEmbedding::try_new_from_user_defined(model, options)
            .map_err(|source| Error::Model { file: model_file, source: Arc::new(source) })?;
        Ok(Self { model })
    }
}

impl Embed for FastEmbed {
    fn version(&self) -> &str {
        MODEL_VERSION
    }

    /// Never several at once: see `docs/decisions/0012-embedding.md`.
    fn embed(&mut self, text: &str) -> Result<Vec<f32>, Error> {
        let vectors = self.model.embed([text], None).map_err(|source| Error::Embed { source: Arc::new(source) })?;
        vectors.into_iter().next().ok_or(Error::Unusable("no vector"))
    }
}

/// Without instructions for products of 8 bits, x86 adds two of them in 16, where they may overflow. There the runtime
/// must take the slower way round, or vectors would not be those of other workers.
fn sums_may_overflow() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !std::is_x86_feature_detected!("avx512vnni") && !std::is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn environment(runtime: &Path) -> Result<Environment, Error> {
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    let failed = |why: String| Error::Runtime { file: runtime.to_owned(), why };
    let made = ort::init_from(runtime)
        .map_err(|error| failed(error.to_string()))?
        .with_name("tandem")
        .with_telemetry(false)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    *environment = Some(made.clone());
    Ok(made)
}
