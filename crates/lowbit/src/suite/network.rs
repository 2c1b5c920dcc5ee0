//! The networks of a suite that compares several.

use super::{Suite, TokenizerSpec, Variant};
use lowbit_base::{Error, Kind};
use lowbit_eval::task;
use lowbit_model::Checkpoint;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A network beside that of the suite: what stands here takes the place of the suite's own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// What it is, a few words for the reader of the report.
    pub about: String,
    /// As [`Suite::tokenizer`].
    pub tokenizer: Option<TokenizerSpec>,
    /// As [`Suite::max_length`].
    pub max_length: Option<usize>,
    /// As [`Suite::pretrained`].
    pub pretrained: Option<String>,
    /// The network that takes its place where the model that training begins from is not there.
    pub otherwise: Option<String>,
    /// As [`Suite::model`], in place of it.
    #[serde(default)]
    pub model: toml::Table,
    /// Training settings that differ from the suite's.
    #[serde(default)]
    pub train: toml::Table,
}

impl Suite {
    /// Name of the network of a variant; that of the suite itself has none.
    pub fn network_of<'a>(&'a self, variant: &'a Variant) -> Option<&'a str> {
        let parent = variant.from.as_ref().and_then(|from| self.variant.iter().find(|v| v.name == *from));
        parent.unwrap_or(variant).network.as_deref()
    }

    /// The suite with the network of a variant in place of its own.
    pub fn of(&self, variant: &Variant) -> Suite {
        let Some(network) = self.network_of(variant).and_then(|name| self.network.get(name)) else {
            return self.clone();
        };
        let NetworkSpec { tokenizer, max_length, pretrained, model, train, .. } = network.clone();
        let own = pretrained.is_some() || !model.is_empty();
        let mut settings = self.train.clone();
        settings.extend(train);
        Suite {
            tokenizer: tokenizer.or_else(|| self.tokenizer.clone().filter(|_| pretrained.is_none())),
            max_length: max_length.unwrap_or(self.max_length),
            pretrained: if own { pretrained } else { self.pretrained.clone() },
            model: if own { model } else { self.model.clone() },
            train: settings,
            ..self.clone()
        }
    }

    /// What is wrong with the networks, if anything is.
    pub(super) fn network_fault(&self) -> Option<String> {
        let known = |name: &String| self.network.contains_key(name);
        let other = self.network.iter().find(|(_, n)| n.otherwise.as_ref().is_some_and(|other| !known(other)));
        if let Some((name, network)) = other {
            let other = network.otherwise.as_deref().unwrap_or_default();
            return Some(format!("network `{name}`: `otherwise` names `{other}`, which is no network"));
        }
        self.variant.iter().find_map(|variant| {
            let fault = match (&variant.network, &variant.from) {
                (Some(name), _) if !known(name) => format!("`network` names `{name}`, which is no network"),
                (Some(name), Some(from)) if self.network_of(variant) != Some(name) => {
                    format!("is made from `{from}`, which has another network: leave `network` out")
                }
                _ => self.of(variant).own_fault()?,
            };
            Some(format!("variant `{}`: {fault}", variant.name))
        })
    }

    /// The suite with other networks in place of those whose models are not there.
    ///
    /// # Errors
    /// When a model is there and cannot be read.
    pub fn resolved(mut self, data: Option<&Path>) -> Result<Suite, Error> {
        for (name, network) in self.network.clone() {
            let (Some(pretrained), Some(other)) = (&network.pretrained, &network.otherwise) else { continue };
            match Checkpoint::open(&self.place(pretrained, data)) {
                Ok(_) => {}
                Err(error) if error.kind == Kind::Io => {
                    let mut other = self.network[other].clone();
                    let fetch = format!("fetch it with `lowbit pull {pretrained}`");
                    other.about = format!("{}, in place of {pretrained}, which is not here ({fetch})", other.about);
                    self.network.insert(name, other);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self)
    }

    /// Where the model of a name lies: in the directory of the suite, in that of the data sets, or as it stands.
    pub(super) fn place(&self, name: &str, data: Option<&Path>) -> PathBuf {
        let beside = self.home.as_ref().map(|home| home.join(name));
        let among = task::data_dir(data).ok().map(|data| data.join(name));
        let here = PathBuf::from(name);
        let places = [beside, Some(here.clone()), among];
        places.into_iter().flatten().find(|path| path.exists()).unwrap_or(here)
    }

    /// What each network is and which variants have it, a sentence each; none of a suite with its own network alone.
    pub fn networks(&self) -> Vec<String> {
        let sentence = |(name, network): (&String, &NetworkSpec)| {
            let has = |variant: &&Variant| self.network_of(variant) == Some(name);
            let variants: Vec<&str> = self.variant.iter().filter(has).map(|v| v.name.as_str()).collect();
            (!variants.is_empty()).then(|| format!("{}: {}.", variants.join(", "), network.about))
        };
        self.network.iter().filter_map(sentence).collect()
    }
}
