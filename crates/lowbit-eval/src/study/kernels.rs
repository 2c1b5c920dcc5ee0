//! The instruction set chosen against the portable code, and what a call costs beside its arithmetic.

use super::turns::{Turn, Turns, time};
use super::{Bench, Column, Study, numbers};
use crate::Error;
use crate::record::Record;
use lowbit_kernels::{Activations, Cpu, Format, Int8Activations, Isa, Mat, Packed, QuantizeOptions, format, gemm};
use std::cell::RefCell;
use std::hint::black_box;

/// Side of the matrix.
const WIDTH: usize = 1000;
/// Examples of a batch.
const BATCH: usize = 32;
/// The instruction set that every machine has.
const SCALAR: &str = "scalar";
/// Side of a matrix whose product is little but the call.
const LEAST: usize = 16;

pub(super) static PORTABLE: Study = Study {
    name: "portable",
    title: "Instruction set chosen against portable code",
    about: "A ternary matrix of 1,000 inputs and 1,000 outputs on the same threads. Backward: the two f32 products of a training \
            step, for 32 examples. Prepare: rounding activations to 8 bits for 32 examples.",
    head: "Operation",
    columns: &[Column::Each("latency_p50"), Column::Faster],
    further: &[],
    run: portable,
};

pub(super) static DISPATCH: Study = Study {
    name: "dispatch",
    title: "What a call costs",
    about: "The product of a matrix of 16 x 16 is little but the call: choosing the kernel and the threads. It is held against that of \
            1,000 x 1,000, one example each.",
    head: "Format",
    columns: &[Column::Each("latency_p50"), Column::Share],
    further: &[],
    run: dispatch,
};

fn portable(study: &Study, bench: &mut Bench) -> Result<Vec<Record>, Error> {
    let chosen = bench.cpu;
    let scalar = Cpu::with(Isa::choose(Some(SCALAR))?, chosen.pool.clone());
    let packed = matrix(format::find("ternary")?, WIDTH)?;
    let (x, weights, dy) = (numbers(BATCH * WIDTH), numbers(WIDTH * WIDTH), numbers(BATCH * WIDTH));
    let name = if chosen.isa.name() == SCALAR { "chosen" } else { chosen.isa.name() };
    let cpus = [(SCALAR, &scalar), (name, chosen)];
    type Work<'a> = &'a dyn Fn(&'a Cpu) -> Turns<'a>;
    let forward = |examples: usize| {
        let (x, packed) = (&x[..examples * WIDTH], &packed);
        move |cpu| -> Turns<'_> { product(cpu, packed, x) }
    };
    let backward = |cpu| -> Turns<'_> { gradients(cpu, &dy, &weights, &x) };
    let prepare = |cpu| -> Turns<'_> {
        let mut rounded = Int8Activations::default();
        let x = &x;
        Box::new(move || {
            rounded.quantize(cpu, x, WIDTH);
            black_box(&rounded);
            Ok(())
        })
    };
    let (one, many) = (forward(1), forward(BATCH));
    let rows: [(&str, Work); 4] = [
        ("forward, batch 1", &one),
        ("forward, batch 32", &many),
        ("backward, batch 32", &backward),
        ("prepare, batch 32", &prepare),
    ];
    let mut records = Vec::new();
    for (row, work) in rows {
        let mut sides: Vec<Record> = cpus.iter().map(|(side, _)| study.record(row, side, "bitnet")).collect();
        let turns = sides.iter_mut().zip(&cpus).map(|(record, (_, cpu))| Turn { record, work: work(cpu) });
        time(turns.collect(), bench)?;
        records.extend(sides);
    }
    Ok(records)
}

fn dispatch(study: &Study, bench: &mut Bench) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    let formats = [
        ("f32", "f32"),
        ("ternary, per tensor", "ternary"),
        ("ternary, per channel", "ternary_channel"),
        ("int8", "int8_channel"),
    ];
    for (row, name) in formats {
        let format = format::find(name)?;
        let matrices =
            [("call", LEAST), ("product", WIDTH)].map(|(side, width)| Ok((side, width, matrix(format, width)?)));
        let matrices = matrices.into_iter().collect::<Result<Vec<_>, Error>>()?;
        let x = numbers(WIDTH);
        let mut sides: Vec<Record> = matrices.iter().map(|(side, ..)| study.record(row, side, name)).collect();
        let work = sides.iter_mut().zip(&matrices);
        let turns =
            work.map(|(record, (_, width, packed))| Turn { record, work: product(bench.cpu, packed, &x[..*width]) });
        time(turns.collect(), bench)?;
        records.extend(sides);
    }
    Ok(records)
}

fn matrix(format: &'static dyn Format, width: usize) -> Result<Packed, Error> {
    Ok(format.quantize(&numbers(width * width), width, width, &QuantizeOptions::default())?)
}

/// The product of a matrix with activations as its recipe gives them: 8 bits where it takes integers.
fn product<'a>(cpu: &'a Cpu, packed: &'a Packed, x: &'a [f32]) -> Turns<'a> {
    let mut rounded = Int8Activations::default();
    rounded.quantize(cpu, x, packed.cols());
    let float = packed.format().spec().activations == format::ActivationType::Float;
    let mut y = vec![0.0; x.len() / packed.cols() * packed.rows()];
    Box::new(move || {
        let x = if float { Activations::F32(x) } else { Activations::Int8(&rounded) };
        packed.matmul(cpu, x, &mut y);
        black_box(&y);
        Ok(())
    })
}

/// Gradients of the inputs, `[batch, width]`, and of the weights, `[width, width]`.
fn gradients<'a>(cpu: &'a Cpu, dy: &'a [f32], weights: &'a [f32], x: &'a [f32]) -> Turns<'a> {
    let (dx, dw) = (RefCell::new(vec![0.0; BATCH * WIDTH]), RefCell::new(vec![0.0; WIDTH * WIDTH]));
    Box::new(move || {
        let (dx, dw) = (&mut *dx.borrow_mut(), &mut *dw.borrow_mut());
        gemm(cpu, BATCH, WIDTH, WIDTH, Mat::new(dy, WIDTH), Mat::new(weights, WIDTH), false, dx);
        gemm(cpu, WIDTH, WIDTH, BATCH, Mat::new(dy, WIDTH).t(), Mat::new(x, WIDTH), false, dw);
        black_box((dx, dw));
        Ok(())
    })
}
