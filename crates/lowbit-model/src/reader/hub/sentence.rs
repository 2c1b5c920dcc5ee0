//! The modules of sentence-transformers beside a network: how its vectors are made of tokens.

use crate::arch::Head;
use crate::arch::family::keys::Keys;
use crate::container::show;
use crate::exec::Pooling;
use crate::model_config::read_map;
use crate::{Config, Error};
use std::path::Path;

/// What the modules of a network are, in their order.
const MODULES: &str = "modules.json";
/// The settings of the module that pools.
const POOLING: &str = "1_Pooling/config.json";
/// Keys that name a way of pooling, and what it is here.
const WAYS: [(&str, Pooling); 3] = [
    ("pooling_mode_mean_tokens", Pooling::Mean),
    ("pooling_mode_cls_token", Pooling::First),
    ("pooling_mode_lasttoken", Pooling::Last),
];

/// Takes pooling and normalization of an embedding model from the files beside it, where there are any.
///
/// # Errors
/// Names file and key of a way of pooling that is not supported.
pub(super) fn read(directory: &Path, config: &mut Config) -> Result<(), Error> {
    let Some(Head::Embed { pooling, normalize }) = config.head_mut() else { return Ok(()) };
    let (modules, path) = (directory.join(MODULES), directory.join(POOLING));
    if path.exists() {
        let (map, _) = read_map(&path)?;
        let keys = Keys::new(&map);
        let at = |e: Error| Error { path: Some(path.clone()), ..e };
        let mut chosen = Vec::new();
        for (key, way) in WAYS {
            if keys.get(key).map_err(at)? == Some(true) {
                chosen.push(way);
            }
        }
        let other =
            keys.unread().find(|(key, value)| key.starts_with("pooling_mode_") && value.as_bool() == Some(true));
        *pooling = match (chosen.as_slice(), other) {
            ([way], None) => *way,
            (_, Some((key, _))) => {
                return Err(at(Error::config(key, "is true; supported: mean, first or last token")));
            }
            _ => return Err(at(Error::config(WAYS[0].0, "exactly one way of pooling must be true"))),
        };
    }
    if modules.exists() {
        let text = crate::container::read_small(&modules, crate::model_config::MAX_BYTES)?;
        let list: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_slice(&text).map_err(|e| Error::input(&modules, format!("not a list of modules: {e}")))?;
        *normalize = false;
        for module in &list {
            let kind = module.get("type").and_then(|kind| kind.as_str()).unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "Pooling" => {}
                "Normalize" => *normalize = true,
                _ => {
                    let text = format!("has a module `{}`; supported: Transformer, Pooling, Normalize", show(kind));
                    return Err(Error::input(&modules, text));
                }
            }
        }
    }
    Ok(())
}
