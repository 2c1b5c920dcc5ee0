//! Names: the nearest known name for a misspelt one, and the check for names that become part of a path.

use crate::text::escaped;

/// Longest name that is compared, bytes: what a file claims to be a name may be anything.
const MAX_COMPARED: usize = 128;
/// Longest name that becomes a part of a path, bytes: below what file systems allow, with room for an ending.
const MAX_PART: usize = 200;
/// Names that are devices on Windows, whatever their extension.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul"];

/// The known name nearest to an unknown name (Jaro-Winkler similarity above 0.7), if any.
pub fn nearest<'a, N: AsRef<str> + ?Sized + 'a>(name: &str, known: impl IntoIterator<Item = &'a N>) -> Option<&'a str> {
    if name.len() > MAX_COMPARED {
        return None;
    }
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(name, known.as_ref()), known.as_ref()));
    scored.filter(|(score, _)| *score > 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// `; did you mean `x`?`, or nothing where no known name is close.
pub fn did_you_mean<'a, N: AsRef<str> + ?Sized + 'a>(name: &str, known: impl IntoIterator<Item = &'a N>) -> String {
    nearest(name, known).map_or(String::new(), |known| format!("; did you mean `{known}`?"))
}

/// What follows a name that is none of the known ones: `; did you mean `x`? known: x, y`, or `; known: x, y`.
pub fn alternatives<'a, N: AsRef<str> + ?Sized + 'a>(name: &str, known: impl IntoIterator<Item = &'a N>) -> String {
    let known: Vec<&str> = known.into_iter().map(AsRef::as_ref).collect();
    let hint = did_you_mean(name, known.iter().copied());
    format!("{}known: {}", if hint.is_empty() { "; ".into() } else { hint + " " }, known.join(", "))
}

/// Sees that a name that stands in a file may become a part of a path: letters and digits of ASCII, `.`, `_` and `-`, no dot
/// at either end, at most 200 bytes, and no device of Windows.
///
/// # Errors
/// A clause that follows what has the name, such as `` `../x` is no plain name: .. ``.
pub fn check_part(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let device = DEVICES.contains(&&*stem)
        || stem.strip_prefix("com").or(stem.strip_prefix("lpt")).is_some_and(|n| n.len() == 1 && n != "0");
    let good = !name.is_empty() && !name.starts_with('.') && !name.ends_with('.') && name.chars().all(plain);
    if good && !device && name.len() <= MAX_PART {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    let rule = format!("letters, digits, `.`, `_` and `-`, no dot at either end, at most {MAX_PART} bytes");
    Err(format!("`{}` is no plain name: use {rule}", escaped(&shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_close() {
        let known = ["ternary", "int8", "int4", "nf4"];
        assert_eq!(nearest("ternery", known), Some("ternary"));
        assert_eq!(nearest("int_8", &known.map(String::from)), Some("int8"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest(&"int8".repeat(1 << 20), known), None);
        assert_eq!(did_you_mean("nf5", known), "; did you mean `nf4`?");
        assert_eq!(did_you_mean("", known), "");
        assert_eq!(alternatives("nf5", ["int8", "nf4"]), "; did you mean `nf4`? known: int8, nf4");
        assert_eq!(alternatives("zzz", ["int8", "nf4"]), "; known: int8, nf4");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for good in
            ["a", "int8", "step-0000000001.safetensors", "model-00001-of-00002.safetensors", "A_b-1.0", "common"]
        {
            assert_eq!(check_part(good), Ok(()), "{good}");
        }
        let long = "x".repeat(MAX_PART + 1);
        for bad in
            ["", ".", "..", "../x", "a/b", "a\\b", ".x", "x.", "a b", "grün", "x\0", "NUL.txt", "com1", "C:", &long]
        {
            assert!(check_part(bad).is_err(), "{bad}");
        }
        assert!(check_part("a\u{1b}[2J").unwrap_err().starts_with("`a\\u{1b}[2J` is no plain name"));
    }
}
