//! Sentencepiece vocabularies of the BPE type, merged as sentencepiece does: the pair of neighbours whose union has the
//! highest score first, the leftmost of equals.

use super::names::{Name, Names, Said, is_text};
use super::pieces::{Pieces, SPACE, byte_token};
use super::{MAX_VOCABULARY, Vocabulary};
use crate::Error;
use crate::container::show;
use lowbit_base::memory::Footprint;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

/// Bytes of a text from which on memory is seen to before it is encoded.
const LONG: usize = 128 << 10;
/// Bytes of memory per byte of a text, spaces and tokens included.
const TAKEN: usize = 16;
/// The same for the place that each byte comes from.
const PLACES: usize = 48;

/// What a piece is for; the numbers are those of sentencepiece and of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    User = 4,
    Unused = 5,
    Byte = 6,
    /// Found in a text by its name before sentencepiece sees the rest, and part of it; `User` to others.
    Added = 7,
}

/// Where the space goes that sentencepiece puts before a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Space {
    /// Nowhere.
    #[default]
    None = 0,
    /// Before every part between added tokens, as sentencepiece and llama.cpp have it.
    Each = 1,
    /// Before every such part that does not begin with a space, as the `legacy` tokenizers of transformers have it.
    Missing = 2,
    /// Before the whole text, if it does not begin with a space, as transformers has it.
    First = 3,
}

impl Space {
    /// The place of a number.
    pub fn of(number: u64) -> Option<Space> {
        [Space::None, Space::Each, Space::Missing, Space::First].into_iter().find(|space| *space as u64 == number)
    }
}

impl Use {
    /// The number that files have.
    pub fn number(self) -> i32 {
        if self == Use::Added { Use::User as i32 } else { self as i32 }
    }

    /// The use of a number.
    pub fn of(number: i64) -> Option<Use> {
        [Use::Normal, Use::Unknown, Use::Control, Use::User, Use::Unused, Use::Byte]
            .into_iter()
            .find(|u| *u as i64 == number)
    }
}

/// A vocabulary that encodes.
pub(super) struct Spm {
    pub vocabulary: Vocabulary,
    ids: HashMap<String, u32>,
    bytes: Option<Box<[u32; 256]>>,
    /// Pieces that are never split, by their first byte, longest first.
    user: HashMap<u8, Vec<String>>,
    unknown: u32,
    /// Added tokens.
    pub names: Names,
    /// No piece has a space after another character, so that words can be encoded one by one.
    by_words: bool,
}

impl Spm {
    /// # Errors
    /// A sentence naming piece and fault.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, String> {
        let n = vocabulary.tokens.len();
        if n == 0 || n > MAX_VOCABULARY || vocabulary.scores.len() != n || vocabulary.uses.len() != n {
            let (scores, uses) = (vocabulary.scores.len(), vocabulary.uses.len());
            let text = format!("the vocabulary has {n} pieces, {scores} scores and {uses} types");
            return Err(format!("{text}; it must have as many of each, 1 to {MAX_VOCABULARY}"));
        }
        if let Some(i) = vocabulary.scores.iter().position(|s| !s.is_finite()) {
            return Err(format!("piece {i} has score {}, which is not a finite number", vocabulary.scores[i]));
        }
        let (mut ids, mut unknown) = (HashMap::with_capacity(n), None);
        let mut user: HashMap<u8, Vec<String>> = HashMap::new();
        let mut bytes = [None; 256];
        for (id, (text, usage)) in vocabulary.tokens.iter().zip(&vocabulary.uses).enumerate() {
            let id = id as u32;
            match usage {
                Use::Control => {}
                Use::Unknown => unknown = unknown.or(Some(id)),
                Use::Byte => {
                    let byte = byte_token(text).ok_or_else(|| format!("byte piece {id} is `{}`", show(text)))?;
                    bytes[usize::from(byte)] = Some(id);
                }
                // Found by its name, never made of other pieces.
                Use::Added => {}
                Use::Normal | Use::Unused | Use::User => {
                    if let Some(first) = ids.insert(text.clone(), id) {
                        return Err(format!("pieces {first} and {id} are both `{}`", show(text)));
                    }
                    if let Some(first) = text.bytes().next().filter(|_| *usage == Use::User) {
                        user.entry(first).or_default().push(text.clone());
                    }
                }
            }
        }
        user.values_mut().for_each(|list| list.sort_by_key(|text| std::cmp::Reverse(text.len())));
        let all: Option<Vec<u32>> = bytes.into_iter().collect();
        let bytes = all.map(|all| Box::new(all.try_into().expect("256 bytes")));
        let unknown = match (unknown, &bytes) {
            (Some(id), _) => id,
            (None, Some(_)) => 0,
            (None, None) => return Err("the vocabulary has neither an unknown piece nor all 256 bytes".into()),
        };
        let names = names_of(&vocabulary);
        let by_words = !ids.keys().any(|text| word_ends(text).next().is_some());
        Ok(Spm { vocabulary, ids, bytes, user, unknown, names, by_words })
    }

    /// The bytes of every piece.
    pub fn pieces(&self) -> Pieces {
        let mut pieces = Pieces::default();
        for (text, usage) in self.vocabulary.tokens.iter().zip(&self.vocabulary.uses) {
            match usage {
                Use::Control => pieces.push_control(text),
                Use::Unknown => pieces.push(" \u{2047} ".as_bytes()),
                Use::Byte => pieces.push(&[byte_token(text).expect("checked")]),
                Use::Added => pieces.push(text.as_bytes()),
                _ => pieces.push(text.replace(SPACE, " ").as_bytes()),
            }
        }
        pieces
    }

    /// Whether every byte of a text is part of a token.
    pub fn covers(&self) -> bool {
        self.bytes.is_some() && !self.vocabulary.squeeze
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        let rest = || self.vocabulary.tokens.iter().position(|t| t == token).map(|id| id as u32);
        self.ids.get(token).copied().or_else(rest)
    }

    /// Appends the tokens of a text to `out` until it has `limit` or a few more.
    ///
    /// # Errors
    /// When there is not as much memory as a long text takes.
    pub fn encode(&self, text: &str, said: &Said, limit: usize, out: &mut Vec<u32>) -> Result<(), Error> {
        let found = self.names.find(text, |from, to| said.touches(from, to));
        let mut at = 0;
        for (i, next) in found.iter().map(|f| (f.start, f.end, f.id)).chain([(text.len(), 0, 0)]).enumerate() {
            let part = &text[at..next.0];
            if part.len() > LONG {
                self.need(part).check()?;
            }
            self.part(part, at, said, limit, out);
            if out.len() >= limit {
                break;
            }
            if i < found.len() {
                out.push(next.2);
            }
            at = next.1;
        }
        Ok(())
    }

    /// Memory that encoding a part of a text takes: the text as its pieces are written, its tokens, and the symbols and pairs of its
    /// longest word.
    fn need(&self, part: &str) -> Footprint {
        let text = part.len() * (TAKEN + if self.user.is_empty() { 0 } else { PLACES });
        let longest = match self.by_words {
            true => part.split(' ').map(|word| word.chars().count()).max().unwrap_or(0),
            false => part.chars().count(),
        };
        // Each merge takes a pair out of the queue and puts in two at most; both lists grow by doubling.
        let symbols = longest * (2 * size_of::<Symbol>() + 4 * size_of::<Pair>());
        Footprint::new("give it in parts").and("tokens of a long text", (text + symbols) as u64)
    }

    /// Appends the tokens of the part of a text that begins `at` bytes from its start.
    fn part(&self, part: &str, at: usize, said: &Said, limit: usize, out: &mut Vec<u32>) {
        let (text, places) = self.normalize(part, at);
        let mut buffers = Buffers::default();
        // Pieces that are never split are no concern of what was said.
        let barred = |from: usize, to: usize| match &places {
            Some(places) => said.touches(at + places[from], at + places[to]),
            None => true,
        };
        let mut start = 0;
        let ends = word_ends(&text).filter(|_| self.by_words).chain([text.len()]);
        for end in ends {
            if out.len() >= limit {
                return;
            }
            self.merge(&text, start..end, &barred, &mut buffers, out);
            start = end;
        }
    }

    /// Appends the bytes of tokens; the space before the text goes, with `squeeze` one of each piece that begins it.
    pub fn decode(&self, pieces: &Pieces, ids: &[u32], out: &mut Vec<u8>) {
        let v = &self.vocabulary;
        let mut begins = v.space != Space::None || v.squeeze;
        for id in ids {
            let bytes = pieces.get(*id).unwrap_or_default();
            let spaced = begins && out.is_empty() && *id != self.unknown && bytes.first() == Some(&b' ');
            begins &= !spaced || v.squeeze;
            out.extend_from_slice(&bytes[usize::from(spaced)..]);
        }
    }

    /// A part as its pieces are written; and, where there are pieces that are never split, the byte of the part that each byte
    /// (and the end) comes from.
    fn normalize(&self, part: &str, at: usize) -> (String, Option<Vec<usize>>) {
        let v = &self.vocabulary;
        let trimmed = if v.squeeze { part.trim_matches(' ') } else { part };
        let mut place = part.len() - part.trim_start_matches(' ').len();
        place = if v.squeeze { place } else { 0 };
        let mut out = String::with_capacity(trimmed.len() + 3);
        let mut places = (!self.user.is_empty()).then(Vec::new);
        let mut push = |c: char, place: usize| {
            out.push(c);
            places.iter_mut().for_each(|places| places.extend(std::iter::repeat_n(place, c.len_utf8())));
        };
        let spaced = match v.space {
            Space::None => false,
            Space::Each => true,
            Space::Missing => !trimmed.starts_with(' '),
            Space::First => at == 0 && !trimmed.starts_with(' '),
        };
        if spaced && !trimmed.is_empty() {
            push(SPACE, place);
        }
        let mut before = false;
        for c in trimmed.chars() {
            let space = c == ' ';
            if !(space && before && v.squeeze) {
                push(if space { SPACE } else { c }, place);
            }
            place += c.len_utf8();
            before = space;
        }
        places.iter_mut().for_each(|places| places.push(place));
        (out, places)
    }

    /// Splits a word of a text into symbols, merges them, and appends what results.
    fn merge<'t>(
        &self,
        text: &'t str,
        word: Range<usize>,
        barred: &dyn Fn(usize, usize) -> bool,
        b: &mut Buffers<'t>,
        out: &mut Vec<u32>,
    ) {
        b.symbols.clear();
        b.queue.clear();
        let mut at = word.start;
        while at < word.end {
            let rest = &text[at..word.end];
            let own =
                |piece: &&String| rest.starts_with(piece.as_str()) && (is_text(piece) || !barred(at, at + piece.len()));
            let user = self.user.get(&rest.as_bytes()[0]).and_then(|list| list.iter().find(own));
            let end = at + user.map_or_else(|| rest.chars().next().map_or(1, char::len_utf8), String::len);
            let i = b.symbols.len();
            b.symbols.push(Symbol {
                start: at,
                end,
                before: i.checked_sub(1),
                after: Some(i + 1),
                fixed: user.is_some(),
            });
            at = end;
        }
        if let Some(last) = b.symbols.last_mut() {
            last.after = None;
        }
        for i in 1..b.symbols.len() {
            self.offer(text, b, Some(i - 1), Some(i));
        }
        while let Some(pair) = b.queue.pop() {
            let (left, right) = (&b.symbols[pair.left], &b.symbols[pair.right]);
            let stale = left.start == left.end || right.start == right.end;
            if stale || right.end - left.start != pair.size || left.end != right.start {
                continue;
            }
            let (end, after) = (right.end, right.after);
            b.symbols[pair.right].start = end;
            let before = b.symbols[pair.left].before;
            (b.symbols[pair.left].end, b.symbols[pair.left].after) = (end, after);
            if let Some(after) = after {
                b.symbols[after].before = Some(pair.left);
            }
            self.offer(text, b, before, Some(pair.left));
            self.offer(text, b, Some(pair.left), after);
        }
        let mut next = (!b.symbols.is_empty()).then_some(0);
        while let Some(i) = next {
            self.emit(&text[b.symbols[i].start..b.symbols[i].end], &b.unused, out);
            next = b.symbols[i].after;
        }
    }

    /// Queues two neighbours if their union is a piece; one that is never split is no union.
    fn offer<'t>(&self, text: &'t str, b: &mut Buffers<'t>, left: Option<usize>, right: Option<usize>) {
        let (Some(left), Some(right)) = (left, right) else {
            return;
        };
        let (l, r) = (&b.symbols[left], &b.symbols[right]);
        let union = &text[l.start..r.end];
        let Some(id) = self.ids.get(union).filter(|_| !l.fixed && !r.fixed) else {
            return;
        };
        match self.vocabulary.uses[*id as usize] {
            Use::User if !is_text(union) => return,
            Use::Unused => {
                b.unused.insert(union, l.end - l.start);
            }
            _ => {}
        }
        b.queue.push(Pair { score: self.vocabulary.scores[*id as usize], left, right, size: union.len() });
    }

    /// Appends the token of a symbol; an unused piece falls back into what it was merged from.
    fn emit(&self, symbol: &str, unused: &HashMap<&str, usize>, out: &mut Vec<u32>) {
        let mut stack = vec![symbol];
        while let Some(symbol) = stack.pop() {
            match (self.ids.get(symbol), unused.get(symbol), &self.bytes) {
                (Some(id), Some(middle), _) if self.vocabulary.uses[*id as usize] == Use::Unused => {
                    let (left, right) = symbol.split_at(*middle);
                    stack.extend([right, left]);
                }
                (Some(id), ..) => out.push(*id),
                (None, _, Some(bytes)) => out.extend(symbol.bytes().map(|byte| bytes[usize::from(byte)])),
                (None, _, None) if out.last() == Some(&self.unknown) => {}
                (None, _, None) => out.push(self.unknown),
            }
        }
    }
}

/// Added tokens of a vocabulary: control tokens, the unknown one, and those that are found by their names.
fn names_of(v: &Vocabulary) -> Names {
    let given: HashMap<u32, &Name> = v.added.iter().map(|name| (name.id, name)).collect();
    let named = v.tokens.iter().zip(&v.uses).zip(0..);
    let named = named.filter(|((_, usage), _)| matches!(usage, Use::Control | Use::Unknown | Use::Added));
    let name = |((text, _), id): ((&String, &Use), u32)| {
        given.get(&id).map_or_else(|| Name::plain(text, id), |name| (*name).clone())
    };
    Names::new(named.map(name).collect())
}

/// Where words end: before each space that follows another character.
fn word_ends(text: &str) -> impl Iterator<Item = usize> {
    let mut before = SPACE;
    text.char_indices().filter_map(move |(at, c)| {
        let ends = c == SPACE && before != SPACE;
        before = c;
        ends.then_some(at)
    })
}

/// A part of the text between its neighbours; empty once merged into the one before.
struct Symbol {
    start: usize,
    end: usize,
    before: Option<usize>,
    after: Option<usize>,
    /// Never merged.
    fixed: bool,
}

/// Two neighbours that may merge.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of the union, by which a pair is known to be stale.
    size: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// Kept from word to word.
#[derive(Default)]
struct Buffers<'t> {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
    /// Bytes of the left part of each merged piece that is unused.
    unused: HashMap<&'t str, usize>,
}
