//! The tests of a model's bench, named as llama-bench names them.

use lowbit_kernels::ops::CacheKind;
use lowbit_model::work::Pass;

/// Tokens of the prompt whose time to the first token is measured.
pub const FIRST: usize = 32;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestKind {
    /// Time to the logits after a prompt of [`FIRST`] tokens.
    First,
    /// A prompt of so many tokens.
    Prompt(usize),
    /// So many tokens one by one.
    Answer(usize),
    /// A prompt, then an answer.
    Both {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the answer.
        answer: usize,
    },
    /// Answers of several sequences together.
    Answers {
        /// Tokens of each.
        tokens: usize,
        /// Sequences.
        sequences: usize,
    },
    /// Rows of numbers, or images, in one pass.
    Rows(usize),
    /// Whole sequences in one pass of a network that gives one answer per sequence.
    Whole {
        /// Tokens of each.
        tokens: usize,
        /// Sequences.
        sequences: usize,
    },
}

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// What is measured.
    pub kind: TestKind,
    /// Tokens that are in each sequence before; they are not part of the time.
    pub depth: usize,
}

impl Test {
    /// Every kind at each depth, and the time to the first token from nothing.
    pub fn at_depths(kinds: &[TestKind], depths: impl IntoIterator<Item = usize>) -> Vec<Test> {
        let at = |depth| kinds.iter().map(move |kind| Test { kind: *kind, depth });
        depths.into_iter().flat_map(at).chain([Test { kind: TestKind::First, depth: 0 }]).collect()
    }

    /// The tests of a network that gives one answer per sequence: prompts one by one and as many together as sequences get their
    /// answers together; it writes no answers.
    pub fn whole(tests: &[Test]) -> Vec<Test> {
        let of = |tokens, sequences| Test { kind: TestKind::Whole { tokens, sequences }, depth: 0 };
        let together: Vec<usize> = tests.iter().map(|test| test.sequences()).filter(|n| *n > 1).collect();
        let mut out: Vec<Test> = Vec::new();
        for tokens in tests.iter().filter_map(|test| if let TestKind::Prompt(n) = test.kind { Some(n) } else { None }) {
            for test in [1].iter().chain(&together).map(|sequences| of(tokens, *sequences)) {
                if !out.contains(&test) {
                    out.push(test);
                }
            }
        }
        out
    }

    /// The tests of a network that reads rows of numbers or images: one alone, and as many in a pass as prompts have tokens.
    pub fn rows(tests: &[Test]) -> Vec<Test> {
        let mut out = vec![Test { kind: TestKind::Rows(1), depth: 0 }];
        for rows in tests.iter().filter_map(|test| if let TestKind::Prompt(n) = test.kind { Some(n) } else { None }) {
            let test = Test { kind: TestKind::Rows(rows), depth: 0 };
            if !out.contains(&test) {
                out.push(test);
            }
        }
        out
    }

    /// `ttft32`, `pp512`, `tg128`, `pp512+tg128`, `tg128x8`, `rows32`; with a depth `tg128 @ d1024`.
    pub fn name(self) -> String {
        let name = match self.kind {
            TestKind::First => format!("ttft{FIRST}"),
            TestKind::Prompt(n) => format!("pp{n}"),
            TestKind::Answer(n) => format!("tg{n}"),
            TestKind::Both { prompt, answer } => format!("pp{prompt}+tg{answer}"),
            TestKind::Answers { tokens, sequences } => format!("tg{tokens}x{sequences}"),
            TestKind::Rows(n) => format!("rows{n}"),
            TestKind::Whole { tokens, sequences: 1 } => format!("pp{tokens}"),
            TestKind::Whole { tokens, sequences } => format!("pp{tokens}x{sequences}"),
        };
        if self.depth == 0 { name } else { format!("{name} @ d{}", self.depth) }
    }

    /// Tokens of the prompt, fed together, then those fed one by one, to each sequence.
    pub fn steps(self) -> (usize, usize) {
        match self.kind {
            TestKind::First => (FIRST, 0),
            TestKind::Prompt(n) | TestKind::Whole { tokens: n, .. } => (n, 0),
            TestKind::Rows(_) => (1, 0),
            TestKind::Answer(n) => (0, n),
            TestKind::Both { prompt, answer } => (prompt, answer),
            TestKind::Answers { tokens, .. } => (0, tokens),
        }
    }

    /// Sequences that are continued together.
    pub fn sequences(self) -> usize {
        match self.kind {
            TestKind::Answers { sequences, .. } | TestKind::Whole { sequences, .. } | TestKind::Rows(sequences) => {
                sequences
            }
            _ => 1,
        }
    }

    /// Tokens fed in all while the time runs.
    pub fn tokens(self) -> usize {
        let (prompt, answer) = self.steps();
        (prompt + answer) * self.sequences()
    }

    /// Tokens of a sequence in the end.
    pub fn length(self) -> usize {
        let (prompt, answer) = self.steps();
        self.depth + prompt + answer
    }

    /// Its passes: how many, and one of them, halfway.
    pub fn passes(self, cache: CacheKind) -> Vec<(usize, Pass)> {
        let (prompt, answer) = self.steps();
        let pass = |past, new| Pass { sequences: self.sequences(), past, new, cache, head_bytes: None };
        let parts = [(1, pass(self.depth, prompt)), (answer, pass(self.depth + prompt + answer / 2, 1))];
        parts.into_iter().filter(|(count, pass)| *count > 0 && pass.new > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_the_tokens_of_a_test() {
        let both = TestKind::Both { prompt: 512, answer: 128 };
        let cases = [
            (TestKind::First, 0, "ttft32", 32, 32),
            (TestKind::Prompt(512), 100, "pp512 @ d100", 512, 612),
            (TestKind::Answer(128), 0, "tg128", 128, 128),
            (both, 64, "pp512+tg128 @ d64", 640, 704),
            (TestKind::Answers { tokens: 16, sequences: 8 }, 10, "tg16x8 @ d10", 128, 26),
            (TestKind::Whole { tokens: 16, sequences: 8 }, 0, "pp16x8", 128, 16),
            (TestKind::Whole { tokens: 16, sequences: 1 }, 0, "pp16", 16, 16),
            (TestKind::Rows(32), 0, "rows32", 32, 1),
        ];
        for (kind, depth, name, tokens, length) in cases {
            let test = Test { kind, depth };
            assert_eq!((test.name().as_str(), test.tokens(), test.length()), (name, tokens, length));
            let fed = test.passes(CacheKind::default()).iter().map(|(n, p)| n * p.new * p.sequences).sum::<usize>();
            assert_eq!(fed, tokens);
        }
        let answers = TestKind::Answers { tokens: 1, sequences: 4 };
        let whole = Test::whole(&Test::at_depths(&[TestKind::Prompt(8), both, answers], [0, 5]));
        assert_eq!(whole.iter().map(|test| test.name()).collect::<Vec<_>>(), ["pp8", "pp8x4"]);
        let rows = Test::rows(&Test::at_depths(&[TestKind::Prompt(8), TestKind::Answer(3), TestKind::Prompt(1)], [0]));
        assert_eq!(rows.iter().map(|test| test.name()).collect::<Vec<_>>(), ["rows1", "rows8"]);
        let [(1, first), (128, second)] = Test { kind: both, depth: 64 }.passes(CacheKind::default())[..] else {
            panic!("a prompt, then 128 tokens");
        };
        assert_eq!((first.past, second.past), (64, 64 + 512 + 64));
    }
}
