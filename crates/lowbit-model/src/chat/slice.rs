//! Python's slices, `value[start:stop:step]`; the engine's own go wrong backwards.

use super::guard::{Result, refuse};
use minijinja::Value;
use minijinja::value::{Tuple, ValueKind};

/// Start, stop and step.
type Bounds = (Option<i64>, Option<i64>, i64);

/// The part of a text, list or tuple that bounds name, each of which may be none.
pub(super) fn slice(value: Value, start: Value, stop: Value, step: Value) -> Result<Value> {
    let bound = |v: Value| if v.is_none() { Ok(None) } else { i64::try_from(v).map(Some) };
    let bounds = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if bounds.2 == 0 {
        return Err(refuse("a slice has step 0"));
    }
    match value.kind() {
        ValueKind::String => {
            let text: Vec<char> = value.as_str().unwrap_or_default().chars().collect();
            Ok(places(text.len(), bounds).map(|i| text[i]).collect::<String>().into())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            let part: Vec<Value> = places(items.len(), bounds).map(|i| items[i].clone()).collect();
            Ok(if value.is_tuple() { Tuple::from(part).into() } else { part.into() })
        }
        ValueKind::Undefined | ValueKind::None => Ok(Vec::<Value>::new().into()),
        kind => Err(refuse(format!("{kind} cannot be sliced"))),
    }
}

/// The places of a slice of `len` elements, as `slice.indices` of Python names them.
fn places(len: usize, (start, stop, step): Bounds) -> impl Iterator<Item = usize> {
    let (len, step) = (len as i128, i128::from(step));
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |bound: Option<i64>, missing: i128| {
        let from_end = |at: i64| i128::from(at) + if at < 0 { len } else { 0 };
        bound.map_or(missing, |at| from_end(at).clamp(low, high))
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (first, last) = (place(start, first), place(stop, last));
    let inside = move |at: &i128| if step > 0 { *at < last } else { *at > last };
    std::iter::successors(Some(first), move |at| Some(at + step)).take_while(inside).map(|at| at as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_those_of_python() {
        let cases: &[(usize, Bounds, &[usize])] = &[
            (0, (None, None, -1), &[]),
            (5, (None, None, -1), &[4, 3, 2, 1, 0]),
            (5, (Some(3), Some(0), -1), &[3, 2, 1]),
            (5, (Some(1), Some(4), -1), &[]),
            (5, (Some(-1), Some(-4), -2), &[4, 2]),
            (5, (Some(9), None, -2), &[4, 2, 0]),
            (5, (Some(-9), None, -1), &[]),
            (5, (Some(1), Some(-1), 1), &[1, 2, 3]),
            (5, (Some(-2), None, 1), &[3, 4]),
            (5, (Some(3), Some(2), 1), &[]),
            (5, (None, Some(99), 3), &[0, 3]),
            (5, (Some(i64::MIN), Some(i64::MAX), i64::MAX), &[0]),
            (5, (Some(i64::MAX), Some(i64::MIN), i64::MIN), &[4]),
            (1, (None, None, i64::MIN), &[0]),
        ];
        for &(len, bounds, expected) in cases {
            assert_eq!(places(len, bounds).collect::<Vec<_>>(), expected, "{bounds:?} of {len}");
        }
    }
}
