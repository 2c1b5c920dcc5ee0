//! Scores of a language model on a text are those of plain forward passes.

mod common;

use common::*;
use lowbit_model::exec::Batch;
use lowbit_model::language::Scorer;
use lowbit_model::{Checkpoint, Config, CpuExec, Kind};
use std::sync::Arc;

fn text() -> Vec<u32> {
    let mut noise = Noise(3);
    (0..150).map(|_| ((noise.next() + 1.0) * 128.0) as u32).collect()
}

/// `-ln p` of each token after the first, from one pass over `tokens`, in f64.
fn plain(exec: &mut CpuExec, model: &lowbit_model::Model<lowbit_model::Param>, tokens: &[u32]) -> Vec<f64> {
    let logits = exec.forward(model, &Batch::new([&tokens[..tokens.len() - 1]])).unwrap();
    let width = logits.width();
    let rows = logits.to_vec();
    let surprise = |(row, token): (&[f32], &u32)| {
        let sum: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
        sum.ln() - f64::from(row[*token as usize])
    };
    rows.chunks_exact(width).zip(&tokens[1..]).map(surprise).collect()
}

#[test]
fn windows_give_what_a_pass_over_the_same_tokens_gives() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), &Config::Decoder(decoder(LM)));
    let model = Arc::new(Checkpoint::open(home.path()).unwrap().model().unwrap());
    let (tokens, mut exec) = (text(), CpuExec::new(cpu()));
    let whole = plain(&mut exec, &model, &tokens);
    for (context, stride) in [(1000, 1), (149, 149), (64, 16), (64, 64), (7, 3)] {
        let mut scorer = Scorer::new(model.clone(), cpu(), context, stride).unwrap();
        let scores = scorer.score(&tokens).unwrap();
        assert_eq!(scores.len(), 149);
        for at in [0, 1, context.min(149) - 1] {
            assert!((scores[at].nats - whole[at]).abs() < 1e-5, "{context} {stride} {at}");
        }
        if context < 149 {
            let last = plain(&mut exec, &model, &tokens[149 - context..]);
            assert!((scores[148].nats - last[context - 1]).abs() < 1e-5, "{context} {stride}");
        }
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), &Config::Decoder(decoder(LM)));
    let model = Arc::new(Checkpoint::open(home.path()).unwrap().model().unwrap());
    for stride in [0, 9] {
        let error = Scorer::new(model.clone(), cpu(), 8, stride).err().unwrap();
        assert!(error.kind == Kind::Usage && error.message.contains(&stride.to_string()), "{error}");
    }
    let mut scorer = Scorer::new(model, cpu(), 8, 4).unwrap();
    assert!(scorer.score(&[257]).unwrap_err().message.contains("too short"));
    assert!(scorer.score(&[1, 9000, 2]).unwrap_err().message.contains("9000"));
    let home = tempfile::tempdir().unwrap();
    write(home.path(), &Config::Decoder(decoder(CLASSIFY)));
    let model = Arc::new(Checkpoint::open(home.path()).unwrap().model().unwrap());
    let error = Scorer::new(model, cpu(), 8, 4).unwrap().score(&[1, 2, 3]).unwrap_err();
    assert!(error.message.contains("classifier"), "{error}");
}
