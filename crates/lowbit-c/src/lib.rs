#![doc = include_str!("../README.md")]
//!
//! The border to C: pointers are looked at here and nowhere else, and no panic crosses it.
#![deny(missing_docs)]

use lowbit::base::Kind;
use lowbit::kernels::Cpu;
use lowbit::model::arch::OutputKind;
use lowbit::{Error, Model};
use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::slice;

/// A model that was loaded, as C holds it.
#[allow(non_camel_case_types)]
pub struct lowbit_model {
    model: Model,
    output: OutputKind,
    labels: Vec<CString>,
}

/// The version of the library, which ends in 0.
const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version holds no 0"),
};

/// Why a function failed.
struct Failure {
    code: c_int,
    message: String,
}

impl Failure {
    fn usage(text: &str) -> Self {
        Failure { code: 2, message: text.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            Kind::Usage => 2,
            Kind::Input => 3,
            Kind::Memory => 4,
            Kind::Io => 5,
            Kind::Numeric => 6,
            Kind::Internal | Kind::Check | Kind::Interrupted => 1,
        };
        Failure { code, message: error.to_string() }
    }
}

impl From<Box<dyn Any + Send>> for Failure {
    fn from(_: Box<dyn Any + Send>) -> Self {
        Failure { code: 1, message: "a fault of the library: it panicked".into() }
    }
}

/// Runs work that may fail or panic; the sentence of a failure goes to `error`.
///
/// # Safety
/// `error` is null, or `size` bytes at it may be written.
unsafe fn guarded<T>(error: *mut c_char, size: usize, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, c_int> {
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panic.into()));
    done.map_err(|failure| {
        if !error.is_null() && size > 0 {
            // SAFETY: the caller says that `size` bytes at `error` may be written.
            let out = unsafe { slice::from_raw_parts_mut(error.cast::<u8>(), size) };
            let mut end = failure.message.len().min(size - 1);
            while !failure.message.is_char_boundary(end) {
                end -= 1;
            }
            out[..end].copy_from_slice(&failure.message.as_bytes()[..end]);
            out[end] = 0;
        }
        failure.code
    })
}

/// The text at a pointer.
///
/// # Safety
/// `text` is null, or ends in 0 and lives as long as the result.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::usage(&format!("{what} is NULL")));
    }
    // SAFETY: the caller says that the text ends in 0 and lives long enough.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Failure::usage(&format!("{what} is no UTF-8")))
}

/// The model at a pointer.
///
/// # Safety
/// `model` is null or comes from [`lowbit_load`] and lives as long as the result.
unsafe fn given<'a>(model: *const lowbit_model) -> Result<&'a lowbit_model, Failure> {
    // SAFETY: as the caller says.
    unsafe { model.as_ref() }.ok_or_else(|| Failure::usage("the model is NULL"))
}

/// As in `lowbit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn lowbit_version() -> *const c_char {
    VERSION.as_ptr()
}

/// As in `lowbit.h`.
///
/// # Safety
/// `path` is null or ends in 0; `error` is null, or `error_size` bytes at it may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lowbit_load(
    path: *const c_char,
    threads: usize,
    error: *mut c_char,
    error_size: usize,
) -> *mut lowbit_model {
    let work = || {
        // SAFETY: as the caller says of `path`.
        let path = unsafe { text(path, "the path") }?;
        Ok(Box::into_raw(Box::new(load(Path::new(path), threads)?)))
    };
    // SAFETY: as the caller says of `error`.
    unsafe { guarded(error, error_size, work) }.unwrap_or(std::ptr::null_mut())
}

fn load(path: &Path, threads: usize) -> Result<lowbit_model, Failure> {
    let model = Model::open(path)?;
    let model = match threads {
        0 => model,
        threads => model.on(Cpu::new(None, Some(threads)).map_err(Error::from)?),
    };
    let config = model.checkpoint().model_config();
    let (output, labels) = (config.config.output(), config.labels.clone());
    if output == OutputKind::Tokens {
        let text = format!("{}: a language model; classifiers, regressions and embedding models are", path.display());
        return Err(Failure::usage(&format!("{text} answered from C")));
    }
    // No example, so that the network is loaded now.
    match output {
        OutputKind::Classes(_) => drop(model.classify_all(Vec::<&str>::new())?),
        OutputKind::Value => drop(model.predict_all(Vec::<&str>::new())?),
        OutputKind::Embedding { .. } | OutputKind::Tokens => drop(model.embed_all(Vec::<&str>::new())?),
    }
    let labels = labels.into_iter().map(|label| CString::new(label).unwrap_or_default()).collect();
    Ok(lowbit_model { model, output, labels })
}

impl lowbit_model {
    fn outputs(&self) -> usize {
        match self.output {
            OutputKind::Classes(classes) => classes,
            OutputKind::Value => 1,
            OutputKind::Embedding { width, .. } => width,
            OutputKind::Tokens => 0,
        }
    }

    /// The answers to examples, one after another.
    fn answers<'a>(
        &self,
        examples: impl IntoIterator<Item = impl Into<lowbit::Example<'a>>>,
    ) -> Result<Vec<f32>, Error> {
        Ok(match self.output {
            OutputKind::Classes(_) => {
                let all = self.model.classify_all(examples)?;
                all.into_iter().flat_map(|answer| answer.probabilities).map(|p| p as f32).collect()
            }
            OutputKind::Value => self.model.predict_all(examples)?.into_iter().map(|value| value as f32).collect(),
            OutputKind::Embedding { .. } | OutputKind::Tokens => self.model.embed_all(examples)?.concat(),
        })
    }
}

/// As in `lowbit.h`.
///
/// # Safety
/// `model` is null or comes from [`lowbit_load`] and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lowbit_features(model: *const lowbit_model) -> usize {
    // SAFETY: as the caller says.
    unsafe { model.as_ref() }.and_then(|model| model.model.features()).unwrap_or(0)
}

/// As in `lowbit.h`.
///
/// # Safety
/// As of [`lowbit_features`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lowbit_outputs(model: *const lowbit_model) -> usize {
    // SAFETY: as the caller says.
    unsafe { model.as_ref() }.map_or(0, lowbit_model::outputs)
}

/// As in `lowbit.h`.
///
/// # Safety
/// As of [`lowbit_features`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lowbit_label(model: *const lowbit_model, number: usize) -> *const c_char {
    // SAFETY: as the caller says.
    let model = unsafe { model.as_ref() };
    model.and_then(|model| model.labels.get(number)).map_or(std::ptr::null(), |label| label.as_ptr())
}

/// As in `lowbit.h`.
///
/// # Safety
/// As of [`lowbit_features`]; `x` holds `rows * lowbit_features` numbers, `y` has room for `rows * lowbit_outputs`, and the two do not
/// overlap; `error` as of [`lowbit_load`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lowbit_predict(
    model: *const lowbit_model,
    x: *const f32,
    rows: usize,
    y: *mut f32,
    error: *mut c_char,
    error_size: usize,
) -> c_int {
    let work = || {
        // SAFETY: as the caller says.
        let model = unsafe { given(model) }?;
        let Some(features) = model.model.features() else {
            return Err(Failure::usage("the model reads texts: call lowbit_predict_text"));
        };
        if x.is_null() || y.is_null() {
            return Err(Failure::usage("x or y is NULL"));
        }
        let (Some(read), Some(written)) = (rows.checked_mul(features), rows.checked_mul(model.outputs())) else {
            return Err(Failure::usage("more rows than memory has room for"));
        };
        // SAFETY: the caller says that `x` holds so many numbers.
        let x = unsafe { slice::from_raw_parts(x, read) };
        let answers = model.answers(x.chunks_exact(features))?;
        // SAFETY: the caller says that `y` has room for so many, apart from `x`.
        unsafe { slice::from_raw_parts_mut(y, written) }.copy_from_slice(&answers);
        Ok(())
    };
    // SAFETY: as the caller says of `error`.
    unsafe { guarded(error, error_size, work) }.err().unwrap_or(0)
}

/// As in `lowbit.h`.
///
/// # Safety
/// As of [`lowbit_features`]; `text` is null or ends in 0; `y` has room for `lowbit_outputs` numbers; `error` as of [`lowbit_load`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lowbit_predict_text(
    model: *const lowbit_model,
    text: *const c_char,
    y: *mut f32,
    error: *mut c_char,
    error_size: usize,
) -> c_int {
    let work = || {
        // SAFETY: as the caller says.
        let model = unsafe { given(model) }?;
        // SAFETY: as the caller says of `text`.
        let text = unsafe { self::text(text, "the text") }?;
        if model.model.features().is_some() {
            return Err(Failure::usage("the model reads rows of numbers: call lowbit_predict"));
        }
        if y.is_null() {
            return Err(Failure::usage("y is NULL"));
        }
        let answers = model.answers([text])?;
        // SAFETY: the caller says that `y` has room for so many numbers.
        unsafe { slice::from_raw_parts_mut(y, model.outputs()) }.copy_from_slice(&answers);
        Ok(())
    };
    // SAFETY: as the caller says of `error`.
    unsafe { guarded(error, error_size, work) }.err().unwrap_or(0)
}

/// As in `lowbit.h`.
///
/// # Safety
/// `model` is null or comes from [`lowbit_load`], was not freed, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lowbit_free(model: *mut lowbit_model) {
    if !model.is_null() {
        // SAFETY: as the caller says; `lowbit_load` made it of a box.
        let model = unsafe { Box::from_raw(model) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(model)));
    }
}
