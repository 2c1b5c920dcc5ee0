//! What an answer must look like: a guide bars tokens that lead elsewhere.

use crate::Error;
use std::fmt;
use std::sync::Arc;

/// Follows an answer token by token.
pub trait Guide: Send {
    /// Sets the logits of tokens that may not come next, `[vocabulary]`, to minus infinity.
    ///
    /// # Errors
    /// When no token may come.
    fn bar(&mut self, logits: &mut [f32]) -> Result<(), Error>;
    /// Notes the token that came.
    ///
    /// # Errors
    /// When it may not.
    fn follow(&mut self, token: u32) -> Result<(), Error>;
}

/// Makes the guide of an answer.
type MakeGuide = dyn Fn() -> Result<Box<dyn Guide>, Error> + Send + Sync;

/// What makes guides: one for each answer.
#[derive(Clone)]
pub struct Guided(Arc<MakeGuide>);

impl Guided {
    /// By a function.
    pub fn by(make: impl Fn() -> Result<Box<dyn Guide>, Error> + Send + Sync + 'static) -> Self {
        Guided(Arc::new(make))
    }

    /// A guide at its begin.
    ///
    /// # Errors
    /// When there is none.
    pub fn begin(&self) -> Result<Box<dyn Guide>, Error> {
        (self.0)()
    }
}

impl fmt::Debug for Guided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guided(..)")
    }
}

impl PartialEq for Guided {
    /// Whether both are made by the same.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
