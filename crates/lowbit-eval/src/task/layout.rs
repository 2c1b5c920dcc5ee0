//! Where the rows of a split are, and what the columns of their files mean.

use super::{Question, SEPARATOR, Task};
use crate::read::images::ImageSize;
use crate::read::{Column, Format, Input, Prompt, Share, Table, Target};
use lowbit_model::InputColumns;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Stands for the name of a part in the paths of a test.
pub(super) const PART: &str = "{part}";

/// Files that share one layout, and the meaning of their columns (see [`Table`]).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Candidates, relative to the data directory; the first that exists is read.
    pub paths: Vec<PathBuf>,
    /// Height and width that image files are scaled to.
    pub size: Option<[usize; 2]>,
    /// Colours of their pixels: 1 for grey, 3 for red, green and blue.
    pub colours: Option<usize>,
    /// Files of labels beside files of images, likewise.
    #[serde(default)]
    pub label_paths: Vec<PathBuf>,
    /// See [`Table::format`].
    pub format: Option<Format>,
    /// See [`Table::header`].
    #[serde(default)]
    pub header: bool,
    /// See [`Table::delimiter`].
    pub delimiter: Option<char>,
    /// See [`Table::quoting`].
    pub quoting: Option<bool>,
    /// Columns that make the text, joined with one space.
    #[serde(default)]
    pub text: Vec<Column>,
    /// Two columns that make a pair of texts, instead of one text.
    #[serde(default)]
    pub pair: Vec<Column>,
    /// What stands between the texts of a pair; ` [SEP] ` when absent.
    pub separator: Option<String>,
    /// Columns that hold a number each, instead of a text.
    #[serde(default)]
    pub features: Vec<Column>,
    /// Column of the class.
    pub label: Option<Column>,
    /// What the file calls each class; `"0"`, `"1"`, ... in class order when absent.
    pub labels: Option<Vec<String>>,
    /// Columns of the texts of which one is to be chosen, where each row has its own; the label tells which is right.
    #[serde(default)]
    pub choices: Vec<Column>,
    /// Column of the number that is asked for.
    pub value: Option<Column>,
    /// Column of the text that is asked for.
    pub answer: Option<Column>,
    /// Of a file that is read as bytes: where the split begins and ends, as shares of the file.
    pub share: Option<Share>,
    /// What a reader must know of these files before trusting measures of them, one sentence without its full stop.
    pub note: Option<String>,
}

impl Layout {
    /// The layout of one part of the test.
    pub(super) fn of_part(&self, part: &str) -> Layout {
        let paths = self.paths.iter().map(|path| path.to_string_lossy().replace(PART, part).into()).collect();
        Layout { paths, ..self.clone() }
    }

    /// What the input is made of.
    fn input(&self, task: &Task) -> Input {
        match task.prompt() {
            Some(template) => Input::Prompt(Prompt { template: template.clone(), choices: self.choices.clone() }),
            None if self.format == Some(Format::Images) => Input::ImageFile(self.image_size()),
            None if self.has_images() => Input::Image,
            None if !self.pair.is_empty() => Input::Pair,
            None if !self.features.is_empty() => Input::Features,
            None if !self.text.is_empty() => Input::Text,
            None => Input::Bytes(self.share.unwrap_or_default()),
        }
    }

    /// Whether its rows are images: labels are in files of their own, or the format holds both.
    pub(super) fn has_images(&self) -> bool {
        !self.label_paths.is_empty() || matches!(self.format, Some(Format::Cifar | Format::Images))
    }

    /// What image files are scaled to; 0 x 0 where nobody said it, which `check` refuses.
    pub(super) fn image_size(&self) -> ImageSize {
        let [height, width] = self.size.unwrap_or_default();
        ImageSize { height, width, colours: self.colours.unwrap_or(3) }
    }

    /// The columns of the input; none of images and bytes.
    pub(super) fn columns(&self) -> &[Column] {
        let all = [&self.text, &self.pair, &self.features];
        all.into_iter().find(|columns| !columns.is_empty()).map_or(&[], |columns| columns)
    }

    /// The columns of the input as a model keeps them; none where there are none.
    pub(super) fn input_columns(&self) -> Option<InputColumns> {
        let separator = (!self.pair.is_empty()).then(|| self.separator.clone().unwrap_or_else(|| SEPARATOR.into()));
        let columns = InputColumns { columns: self.columns().to_vec(), header: self.header, separator };
        Some(columns).filter(|columns| !columns.columns.is_empty())
    }

    /// One of its files, in the directory of the data sets, as a table.
    pub(super) fn table(&self, dir: &Path, path: &Path, task: &Task) -> Table {
        let mut labels = self.label_paths.iter().map(|path| dir.join(path));
        let labels = labels.clone().find(|path| path.exists()).or_else(|| labels.next_back());
        let classes = if self.choices.is_empty() { task.classes.len() } else { self.choices.len() };
        let numbers = || match self.format {
            Some(Format::Images) => task.classes.clone(),
            _ => (0..classes).map(|class| class.to_string()).collect(),
        };
        let of_classes = || Target::Class { labels: self.labels.clone().unwrap_or_else(numbers) };
        let target = match task.question {
            Question::Classify | Question::Choose => of_classes(),
            Question::Regress => Target::Value,
            Question::Likelihood => Target::NextToken,
            Question::Generate if self.answer.is_some() => Target::Text,
            Question::Generate => of_classes(),
        };
        let target_column = [&self.label, &self.value, &self.answer].into_iter().find_map(Option::as_ref);
        Table {
            path: dir.join(path),
            format: self.format,
            header: self.header,
            delimiter: self.delimiter,
            quoting: self.quoting,
            input: self.input(task),
            columns: self.columns().to_vec(),
            separator: self.separator.clone().unwrap_or_else(|| SEPARATOR.into()),
            target,
            target_column: target_column.cloned().unwrap_or(Column::Index(0)),
            labels,
        }
    }
}

/// Every layout with each of its files.
pub(super) fn candidates(layouts: &[Layout]) -> impl Iterator<Item = (&Layout, &PathBuf)> {
    layouts.iter().flat_map(|layout| layout.paths.iter().map(move |path| (layout, path)))
}

/// The first layout with a file that exists in a directory.
pub(super) fn present<'a>(dir: &Path, layouts: &'a [Layout]) -> Option<(&'a Layout, &'a PathBuf)> {
    candidates(layouts).find(|(_, path)| dir.join(path).exists())
}
