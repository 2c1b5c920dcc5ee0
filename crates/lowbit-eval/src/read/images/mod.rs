//! Folders of images: a directory per class, PNG and JPEG files in it.

mod decode;
mod scale;

use super::rows::Sink;
use super::{Budget, First, Limits, Source, Table, Target, Visitor};
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Endings of the names of images.
pub(super) const ENDINGS: &[&str] = &["png", "jpg", "jpeg"];
/// Sides that images may be scaled to.
const SIDES: std::ops::RangeInclusive<usize> = 1..=1024;
/// Images whose sizes and colours are looked at where nobody says what to scale to.
const SAMPLE: usize = 1000;
/// Sides up to which images of one size keep it, and what others are scaled to: small ones, and larger ones.
const KEPT: usize = 64;
const SMALL: usize = 32;
const LARGE: usize = 64;
/// The folders of a data set that is split already.
const TRAIN: &str = "train";
const TEST: &str = "test";
/// The column of the files of a folder.
pub(crate) const COLUMN: &str = "file";

/// What images become: both sides are scaled to these, each by its own factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSize {
    /// Rows of pixels.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// 1 for grey, 3 for red, green and blue.
    pub colours: usize,
}

impl ImageSize {
    /// Numbers of an image.
    pub fn numbers(&self) -> usize {
        self.height * self.width * self.colours
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn fault(&self) -> Option<String> {
        let (least, most) = (SIDES.start(), SIDES.end());
        match self {
            Self { height, width, .. } if !SIDES.contains(height) || !SIDES.contains(width) => {
                Some(format!("`size` is [{height}, {width}]: height and width are {least} to {most} pixels"))
            }
            Self { colours, .. } if ![1, 3].contains(colours) => {
                Some(format!("`colours` is {colours}: 1 for grey, 3 for red, green and blue"))
            }
            _ => None,
        }
    }
}

/// A folder whose subfolders are classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// Names of the subfolders, sorted.
    pub classes: Vec<String>,
    /// Where the training images are: the folder itself, or its `train`.
    pub train: PathBuf,
    /// Its `test`, if it has one.
    pub test: Option<PathBuf>,
    /// Images of the training folder.
    pub images: usize,
    /// The size of all images where that is one and small, else a small or a larger square; grey where all images are.
    pub size: ImageSize,
    /// Whether all images have that size.
    pub is_exact: bool,
}

impl Folder {
    /// Whether a path is a folder with a subfolder of images, or one whose `train` is.
    pub fn is(path: &Path) -> bool {
        let classes = |path: &Path| folders(path).is_ok_and(|all| all.iter().any(|(_, path)| has_images(path)));
        path.is_dir() && (classes(path) || classes(&path.join(TRAIN)))
    }

    /// Looks at a folder.
    ///
    /// # Errors
    /// When it has fewer than two classes, one of them holds no image, or the first images cannot be read; names the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let inner = path.join(TRAIN);
        let split = Folder::is(&inner);
        let train = if split { inner } else { path.to_path_buf() };
        let found = folders(&train)?;
        let mut files = Vec::new();
        for (name, folder) in &found {
            let images = images(folder)?;
            if images.is_empty() {
                let text = format!("holds no image ({}), and is a class: remove it, or fill it", ENDINGS.join(", "));
                return Err(Error::input(folder, text));
            }
            files.push((name.clone(), images));
        }
        if files.len() < 2 {
            let text = format!("has {} folders with images: a data set has one per class, two at least", files.len());
            return Err(Error::input(&train, text));
        }
        let images = files.iter().map(|(_, images)| images.len()).sum();
        let all: Vec<&PathBuf> = files.iter().flat_map(|(_, images)| images).collect();
        let (size, is_exact) = looked_at(&all)?;
        let test = Some(path.join(TEST)).filter(|test| split && Folder::is(test));
        Ok(Folder { classes: files.into_iter().map(|(name, _)| name).collect(), train, test, images, size, is_exact })
    }
}

/// The size that images are brought to, and whether those looked at have it.
fn looked_at(files: &[&PathBuf]) -> Result<(ImageSize, bool), Error> {
    let step = files.len().div_ceil(SAMPLE);
    let mut facts = Vec::new();
    for path in files.iter().step_by(step.max(1)) {
        facts.push(decode::facts(path)?);
    }
    let colours = if facts.iter().all(|facts| facts.is_grey) { 1 } else { 3 };
    let first = &facts[0];
    let same = facts.iter().all(|facts| (facts.height, facts.width) == (first.height, first.width));
    if same && first.height.max(first.width) <= KEPT {
        return Ok((ImageSize { height: first.height, width: first.width, colours }, true));
    }
    let mut sides: Vec<usize> = facts.iter().map(|facts| facts.height.min(facts.width)).collect();
    sides.sort_unstable();
    let side = if sides[sides.len() / 2] >= LARGE { LARGE } else { SMALL };
    Ok((ImageSize { height: side, width: side, colours }, false))
}

/// Visible subfolders and their names, sorted.
fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut all: Vec<(String, PathBuf)> =
        entries(path)?.into_iter().filter(|path| path.is_dir()).map(|path| (name_of(&path), path)).collect();
    all.sort();
    Ok(all)
}

/// The images of a folder by their names, sorted.
fn images(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut all: Vec<PathBuf> = entries(path)?.into_iter().filter(|path| is_image(path)).collect();
    all.sort();
    Ok(all)
}

fn has_images(path: &Path) -> bool {
    entries(path).is_ok_and(|all| all.iter().any(|path| is_image(path)))
}

/// What a folder holds, without what is hidden.
fn entries(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(path).map_err(|e| Error::io(path, &e))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| !name_of(path).starts_with('.')).collect())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    ENDINGS.contains(&ending.as_str()) && path.is_file()
}

/// The pixels of an image, `[height, width, colours]`, 0 to 255, scaled to a size.
///
/// # Errors
/// When the file is no PNG or JPEG image, or is damaged; names it.
pub fn pixels(path: &Path, size: ImageSize) -> Result<Vec<u8>, Error> {
    let image = decode::image(path)?;
    Ok(scale::scaled(image.with_colours(size.colours), size))
}

/// The numbers of images, `[images, numbers]`, 0 to 1.
///
/// # Errors
/// As [`pixels`].
pub fn numbers<'a>(files: impl IntoIterator<Item = &'a Path>, size: ImageSize) -> Result<Vec<f32>, Error> {
    let mut values = Vec::new();
    for path in files {
        values.extend(pixels(path, size)?.into_iter().map(|pixel| f32::from(pixel) / 255.0));
    }
    Ok(values)
}

/// Reads the classes of a table, each from the folder of its name.
pub(super) fn read(table: &Table, size: ImageSize, limits: &Limits, sink: &mut Sink<'_>) -> Result<(), Error> {
    let Target::Class { labels } = &table.target else {
        return Err(Error::usage("a folder of images holds classes, no values"));
    };
    if let Some((name, folder)) =
        folders(&table.path)?.into_iter().find(|(name, path)| !labels.contains(name) && has_images(path))
    {
        let known = super::abridged(labels.iter().map(String::as_str));
        return Err(Error::input(&folder, format!("holds images of `{name}`, and the task has the classes {known}")));
    }
    let budget = Budget::of_stream(limits.bytes);
    let (mut values, mut classes) = (Vec::new(), Vec::new());
    for (class, label) in labels.iter().enumerate() {
        let folder = table.path.join(label);
        for path in if folder.is_dir() { images(&folder)? } else { Vec::new() } {
            budget.take(4 * size.numbers() as u64).map_err(|e| Error::from(e).in_file(&path))?;
            if classes.len() as u64 >= limits.rows {
                return Err(Error::memory(format!("more than {} images, the limit for one data set", limits.rows)));
            }
            values.extend(pixels(&path, size)?);
            classes.push(class as u16);
        }
    }
    sink.images(size.numbers(), &values, classes);
    Ok(())
}

/// Shows the images of a folder, or one image, to a visitor: one column, their paths.
pub(super) fn visit(source: &Source, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let path = source.path.as_deref().ok_or_else(|| Error::usage("images come from files: name one, or a folder"))?;
    visitor.begin(&First { fields: vec![COLUMN.into()], is_line: false })?;
    let mut waiting = vec![path.to_path_buf()];
    while let Some(next) = waiting.pop() {
        if next.is_dir() {
            let mut inner = folders(&next)?.into_iter().map(|(_, path)| path).collect::<Vec<_>>();
            inner.extend(images(&next)?);
            inner.sort_by(|a, b| b.cmp(a));
            waiting.extend(inner);
        } else {
            visitor.row(None, vec![next.to_string_lossy().into_owned().into()])?;
        }
    }
    Ok(())
}
