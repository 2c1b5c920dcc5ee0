//! What a description must hold, by its question.

use super::layout::PART;
use super::{Generator, Layout, Question, Task};
use crate::read::{Column, Format, TEXT};
use crate::{metrics, quickstart};
use lowbit_base::name::check_part;
use std::collections::HashSet;
use std::path::PathBuf;

/// Bytes at most of what stands between the texts of a pair.
const SEPARATOR_BYTES: usize = 64;

impl Task {
    pub(super) fn check(&self) -> Result<(), String> {
        check_part(&self.name).map_err(|e| format!("`name`: {e}"))?;
        self.check_classes_named()?;
        metrics::check_names(&self.metrics, self.question).map_err(|error| error.message)?;
        if self.version == 0 {
            return Err("version 0: versions count from 1".into());
        }
        self.check_settings()?;
        self.check_parts()?;
        self.check_lengths()?;
        match &self.generator {
            Some(generator) => self.check_generator(generator),
            None if self.question.spec().is_trained => self.check_trained_splits(),
            None => {
                self.check_required("test", &self.test)?;
                [("train", &self.train), ("valid", &self.valid), ("test", &self.test)]
                    .into_iter()
                    .try_for_each(|(split, layouts)| self.check_layouts(split, layouts))?;
                self.check_apart()
            }
        }
    }

    fn check_classes_named(&self) -> Result<(), String> {
        match self.question {
            Question::Classify if !(2..=1 << 15).contains(&self.classes.len()) => {
                return Err(format!("{} classes: a task needs 2 to 32768", self.classes.len()));
            }
            Question::Regress | Question::Likelihood if !self.classes.is_empty() => {
                return Err("`classes` are for the question `classify`".into());
            }
            Question::Choose | Question::Generate if self.classes.len() == 1 => {
                return Err("1 classes: a choice needs 2".into());
            }
            _ => {}
        }
        let mut seen = HashSet::new();
        match self.classes.iter().find(|class| class.is_empty() || !seen.insert(*class)) {
            Some(class) => Err(format!("class {class:?} is empty or listed twice")),
            None => Ok(()),
        }
    }

    /// Parts are of test files whose paths name them.
    fn check_parts(&self) -> Result<(), String> {
        if self.parts.is_empty() {
            return Ok(());
        }
        if self.question != Question::Classify {
            return Err("`parts` are for the question `classify`".into());
        }
        let mut seen = HashSet::new();
        for part in &self.parts {
            check_part(part).map_err(|e| format!("`parts`: {e}"))?;
            if !seen.insert(part) {
                return Err(format!("part `{part}` is listed twice"));
            }
        }
        let named = |path: &PathBuf| path.to_string_lossy().contains(PART);
        let all_named = self.test.iter().all(|layout| layout.paths.iter().all(named));
        match self.test.is_empty() || !all_named {
            true => Err(format!("`parts` need [[test]] files with {PART} in each of their `paths`")),
            false => Ok(()),
        }
    }

    /// Lengths ascend, and are of texts that get a class.
    fn check_lengths(&self) -> Result<(), String> {
        if self.lengths.is_empty() {
            return Ok(());
        }
        if self.question != Question::Classify {
            return Err("`lengths` are for the question `classify`".into());
        }
        match self.lengths.first() == Some(&0) || !self.lengths.is_sorted_by(|a, b| a < b) {
            true => Err(format!("`lengths` {:?}: give numbers of tokens, the shortest first", self.lengths)),
            false => Ok(()),
        }
    }

    /// Settings of the question, and none of others.
    fn check_settings(&self) -> Result<(), String> {
        let name = self.question.spec().name;
        let settings = [
            (Question::Likelihood, self.likelihood.is_some()),
            (Question::Choose, self.choose.is_some()),
            (Question::Generate, self.generate.is_some()),
        ];
        if let Some((other, _)) = settings.into_iter().find(|(question, given)| *given && *question != self.question) {
            return Err(format!("[{}] is of another question than `{name}`: leave it out", other.spec().name));
        }
        if matches!(self.question, Question::Choose | Question::Generate) && self.prompt().is_none() {
            return Err(format!("no [{name}] table: give its `prompt`"));
        }
        let of_training = [
            ("hold_out", self.hold_out.is_some()),
            ("exclude_test_from_train", self.exclude_test_from_train),
            ("[generator]", self.generator.is_some()),
        ];
        let given = of_training.into_iter().find(|(_, given)| *given && !self.question.spec().is_trained);
        if let Some((field, _)) = given {
            return Err(format!("`{field}` is for questions that networks are trained for, not `{name}`"));
        }
        if self.question.spec().is_trained && !self.valid.is_empty() {
            return Err(format!("[[valid]] is not read for the question `{name}`: leave it out"));
        }
        if self.prompt().is_some_and(|prompt| prompt.fields().next().is_none()) {
            return Err(format!("[{name}] `prompt` names no {{column}}: every row would be asked the same"));
        }
        self.likelihood.as_ref().map_or(Ok(()), |settings| settings.check())?;
        self.choose.as_ref().map_or(Ok(()), |settings| settings.check(&self.classes))?;
        self.generate.as_ref().map_or(Ok(()), |settings| settings.check())
    }

    fn check_trained_splits(&self) -> Result<(), String> {
        self.check_required("train", &self.train)?;
        self.check_layouts("train", &self.train)?;
        match self.hold_out {
            None => {
                self.check_required("test", &self.test)?;
                self.check_layouts("test", &self.test)
            }
            Some(_) if !self.test.is_empty() => Err("a task has either [[test]] files or `hold_out`".into()),
            Some(share) if share > 0.0 && share < 1.0 => Ok(()),
            Some(share) => Err(format!("hold_out is {share}: choose a share between 0 and 1")),
        }
    }

    fn check_generator(&self, generator: &Generator) -> Result<(), String> {
        if !self.train.is_empty() || !self.test.is_empty() {
            return Err("a task has either a generator or train and test files, not both".into());
        }
        if self.classes != quickstart::CLASSES {
            return Err(format!("classes of the generator are {}", quickstart::CLASSES.join(", ")));
        }
        for (field, rows) in [("train_rows", generator.train_rows), ("test_rows", generator.test_rows)] {
            if !(1..=10_000_000).contains(&rows) {
                return Err(format!("generator.{field} is {rows}: choose 1 to 10000000"));
            }
        }
        Ok(())
    }

    fn check_required(&self, split: &str, layouts: &[Layout]) -> Result<(), String> {
        match layouts.is_empty() {
            true if self.question.spec().is_trained => {
                Err(format!("no [[{split}]] table and no [generator]: say where the rows are"))
            }
            true => Err(format!("no [[{split}]] table: say where the rows are")),
            false => Ok(()),
        }
    }

    fn check_layouts(&self, split: &str, layouts: &[Layout]) -> Result<(), String> {
        for layout in layouts {
            self.check_layout(layout).map_err(|message| format!("[[{split}]] {message}"))?;
        }
        Ok(())
    }

    /// Splits of one file have no byte in common.
    fn check_apart(&self) -> Result<(), String> {
        let shares = |layouts: &[Layout]| {
            let of_layout = |layout: &Layout| {
                let share = layout.share.unwrap_or_default();
                layout.paths.iter().map(|path| (path.clone(), share)).collect::<Vec<_>>()
            };
            layouts.iter().filter(|layout| layout.text.is_empty()).flat_map(of_layout).collect::<Vec<_>>()
        };
        let splits = [("train", shares(&self.train)), ("valid", shares(&self.valid)), ("test", shares(&self.test))];
        for (i, (name, own)) in splits.iter().enumerate() {
            for (other, theirs) in &splits[..i] {
                let meet = own.iter().find(|(path, a)| theirs.iter().any(|(theirs, b)| path == theirs && a.meets(*b)));
                if let Some((path, _)) = meet {
                    let path = path.display();
                    return Err(format!(
                        "[[{other}]] and [[{name}]] have bytes of {path} in common: give shares that do not overlap"
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_layout(&self, layout: &Layout) -> Result<(), String> {
        self.check_input(layout)?;
        self.check_images(layout)?;
        self.check_target(layout)?;
        if let Some(delimiter) = layout.delimiter.filter(|c| c.is_alphanumeric() || "\"\r\n".contains(*c)) {
            return Err(format!("delimiter {delimiter:?} cannot separate fields: give e.g. \";\""));
        }
        let classes = if layout.choices.is_empty() { self.classes.len() } else { layout.choices.len() };
        match layout.labels.as_ref().filter(|labels| labels.len() != classes) {
            Some(labels) => Err(format!("has {} labels for {classes} classes", labels.len())),
            None => Ok(()),
        }
    }

    fn check_input(&self, layout: &Layout) -> Result<(), String> {
        let columns = [&layout.text, &layout.pair, &layout.features].map(|columns| !columns.is_empty());
        let inputs = columns.into_iter().chain([layout.has_images()]).filter(|given| *given).count();
        let is_bytes = self.question == Question::Likelihood && inputs == 0;
        let is_prompt = self.prompt().is_some();
        if layout.paths.is_empty() || (inputs == 0 && !is_bytes && !is_prompt) {
            return Err("needs at least one of `paths` and one `text`, `pair` or `features` column".into());
        }
        if inputs > 1 {
            return Err("has several kinds of input: `text`, `pair`, `features` or images".into());
        }
        if is_prompt && inputs != usize::from(!layout.text.is_empty()) {
            return Err("is of a prompt: name its columns in the prompt, or in `text` as its field {text}".into());
        }
        let field = Column::Name(TEXT.into());
        if self.prompt().is_some_and(|prompt| !layout.text.is_empty() && !prompt.fields().any(|f| *f == field)) {
            return Err("has `text` columns, and the prompt no field {text}: leave them out".into());
        }
        if layout.pair.len() == 1 || layout.pair.len() > 2 {
            return Err(format!("`pair` has {} columns: a pair has 2", layout.pair.len()));
        }
        let separator = layout.separator.as_ref();
        if separator.is_some_and(|separator| separator.len() > SEPARATOR_BYTES || layout.pair.is_empty()) {
            return Err(format!("`separator` stands between the texts of a `pair`, {SEPARATOR_BYTES} bytes at most"));
        }
        match layout.share {
            Some(_) if !is_bytes => Err("`share` is for files that are read as bytes: leave it out".into()),
            Some(share) => share.check().map_err(|message| format!("`share`: {message}")),
            None => Ok(()),
        }
    }

    /// Image files are scaled to a size; nothing else is.
    fn check_images(&self, layout: &Layout) -> Result<(), String> {
        let is_files = layout.format == Some(Format::Images);
        match (is_files, layout.size, layout.colours) {
            (false, None, None) => Ok(()),
            (false, ..) => Err("has `size` or `colours`, which are for `format = \"images\"`: leave them out".into()),
            (true, None, _) => {
                Err("has image files and no `size`: give height and width, as in size = [32, 32]".into())
            }
            (true, ..) => layout.image_size().fault().map_or(Ok(()), Err),
        }
    }

    fn check_choices(&self, layout: &Layout) -> Result<(), String> {
        match (self.classes.len(), layout.choices.len()) {
            (0, 0) => Err("has no `choices` columns, and the task no `classes`: say what is to be chosen from".into()),
            (0, 1) => Err("has 1 `choices` column: a choice needs 2".into()),
            (0, _) | (_, 0) => Ok(()),
            _ => Err("has `choices` columns, and the task `classes`: give one of them".into()),
        }
    }

    fn check_target(&self, layout: &Layout) -> Result<(), String> {
        if layout.answer.is_some() && self.question != Question::Generate {
            return Err("`answer` is for the question `generate`".into());
        }
        if !layout.choices.is_empty() && self.question != Question::Choose {
            return Err("`choices` are for the question `choose`".into());
        }
        let images = layout.has_images();
        match (self.question, &layout.label, &layout.value) {
            (Question::Classify, Some(_), None) => Ok(()),
            (Question::Classify, None, None) if images => Ok(()),
            (Question::Regress, None, Some(_)) if layout.labels.is_none() && !images => Ok(()),
            (Question::Choose, Some(_), None) => self.check_choices(layout),
            (Question::Likelihood, None, None) if layout.features.is_empty() && !images => Ok(()),
            (Question::Generate, ..) if self.classes.is_empty() == layout.answer.is_none() => {
                Err("needs an `answer` column, or the task `classes` whose `label` it names".into())
            }
            (Question::Generate, None, None) if layout.answer.is_some() => Ok(()),
            (Question::Generate, Some(_), None) if layout.answer.is_none() => Ok(()),
            (Question::Generate, ..) => Err("needs either an `answer` or a `label` column and no `value`".into()),
            (Question::Classify | Question::Choose, ..) => Err("needs a `label` column and no `value`".into()),
            (Question::Regress, ..) => Err("needs a `value` column and no `label`".into()),
            (Question::Likelihood, ..) => Err("needs `text` or whole files, and neither `label` nor `value`".into()),
        }
    }
}
