//! A task and a suite for a folder of images.

use super::{Beside, Network, TASK, TEST, basic, filled, named, suite_from};
use lowbit_base::Error;
use lowbit_eval::read::images::{Folder, ImageSize};
use lowbit_model::Checkpoint;
use std::path::Path;

/// A suite for a folder whose subfolders are classes, and a published model or a default network, with the task in it; what is said of
/// the choices.
///
/// # Errors
/// When the folder holds no classes of images, the model cannot be opened, reads no images, or has other classes.
pub fn of_images(model: Option<&Path>, data: &Path) -> Result<(String, String, Vec<String>), Error> {
    let whole = std::path::absolute(data).map_err(|e| Error::io(data, &e))?;
    let mut folder = Folder::open(&whole)?;
    let checkpoint = model.map(Checkpoint::open).transpose()?;
    let network = match checkpoint.as_ref().zip(model) {
        Some((checkpoint, path)) => {
            (folder.classes, folder.size) = of_model(checkpoint, path, &folder)?;
            Network::AsIs
        }
        None => Network::Images,
    };
    let ImageSize { height, width, colours } = folder.size;
    let kind = if colours == 1 { "grey" } else { "in colours" };
    let (shown, images, classes) = (data.display(), folder.images, folder.classes.len());
    let mut said = vec![format!("{shown}: {images} images of {classes} classes ({})", super::sample(&folder.classes))];
    said.push(match folder.is_exact && network == Network::Images {
        true => format!("all are {height} x {width} pixels, {kind}"),
        false => format!("each is scaled to {height} x {width} pixels, {kind}, both sides by their own factors"),
    });
    let held = if folder.test.is_some() { 0.0 } else { TEST };
    said.push(match held > 0.0 {
        true => format!("{:.0} % of the images are the test, chosen by a hash of their pixels", 100.0 * TEST),
        false => "the images of `test` are the test".into(),
    });
    said.push(match model {
        Some(model) => format!("{} is compared as it is", model.display()),
        None => "no model is named: a small network of convolutions is trained on the images".into(),
    });
    let rows = (images as f64 * (1.0 - held)) as usize;
    let path =
        model.and_then(|model| std::path::absolute(model).ok().filter(|path| path.exists()).or(Some(model.into())));
    let model = path.map_or(String::new(), |path| path.display().to_string());
    let beside = Beside { model, length: 1, image: [height, width, colours] };
    Ok((suite_from(&named(data), TASK, network, rows, &beside), task(data, &folder, held), said))
}

/// The classes of a model in its order, and what it reads.
fn of_model(checkpoint: &Checkpoint, path: &Path, folder: &Folder) -> Result<(Vec<String>, ImageSize), Error> {
    let config = checkpoint.model_config();
    let shown = path.display();
    let Some([height, width, colours]) = config.config.image() else {
        return Err(Error::usage(format!("{shown} reads no images: leave it out, and a network is trained on them")));
    };
    let labels = &config.labels;
    if labels.len() != folder.classes.len() || labels.iter().any(|label| !folder.classes.contains(label)) {
        let (own, given) = (super::sample(labels), super::sample(&folder.classes));
        let text =
            format!("{shown} knows the classes {own}, and the folders are {given}: name the folders as its classes");
        return Err(Error::usage(format!("{text}, or leave it out, and a network is trained on the images")));
    }
    Ok((labels.clone(), ImageSize { height, width, colours }))
}

fn task(data: &Path, folder: &Folder, held: f64) -> String {
    let quoted = |text: &str| format!("\"{}\"", basic(text));
    let classes = folder.classes.iter().map(|class| quoted(class)).collect::<Vec<_>>().join(", ");
    let ImageSize { height, width, colours } = folder.size;
    let files = |path: &Path| {
        let path = quoted(&path.display().to_string());
        format!(
            "format = \"images\"  # a folder per class: PNG and JPEG\npaths = [{path}]\nsize = [{height}, {width}]  # height and \
                 width that images are scaled to\ncolours = {colours}  # 1 for grey, 3 for red, green and blue"
        )
    };
    let split = match &folder.test {
        Some(test) => format!("\n[[test]]\n{}\n", files(test)),
        None => String::new(),
    };
    let hold_out = match held > 0.0 {
        true => format!("hold_out = {held}  # this share of the images is the test"),
        false => String::new(),
    };
    let about = format!("Class of an image of {}.", data.display());
    filled(
        include_str!("../../templates/task_images.toml"),
        &[
            ("name", &named(data)),
            ("about", &basic(&about)),
            ("classes", &classes),
            ("held", &hold_out),
            ("train", &files(&folder.train)),
            ("test", &split),
        ],
    )
}
