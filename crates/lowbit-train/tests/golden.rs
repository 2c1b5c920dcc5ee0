//! Training against PyTorch in f64: logits, loss, every gradient, ten AdamW updates. The vectors are made by
//! `tools/golden/train.py`, which keeps all values of the quantized cases off the rounding boundaries: both sides see
//! the same codes, so every case has the same tolerance.

use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::source::{ParamSpec, Role};
use lowbit_model::{Checkpoint, Config, ModelConfig, checkpoint};
use lowbit_train::{
    BatchTargets, Control, Data, Job, Network, Observer, Pass, Qat, Schedule, StepMetrics, TrainConfig, train,
};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// Largest difference of a logit or gradient, relative to the largest magnitude of its tensor. PyTorch's own f32 stays
/// below 5e-6 of its f64.
const TENSOR: f32 = 1e-4;
/// Relative difference of a loss or gradient norm.
const SCALAR: f64 = 1e-5;
/// The same in the course of ten updates, where AdamW turns tiny gradients into whole steps.
const UPDATES: f64 = 2e-4;

/// The metadata of a case.
#[derive(Deserialize)]
struct Case {
    config: Config,
    qat: Option<Qat>,
    label_smoothing: f32,
    loss: f64,
    adamw: Option<AdamW>,
}

#[derive(Deserialize)]
struct AdamW {
    lr: f32,
    betas: [f32; 2],
    eps: f32,
    weight_decay: f32,
    decay: Vec<Role>,
    clip: f32,
    losses: Vec<f64>,
    gradient_norms: Vec<f64>,
}

struct Golden {
    name: String,
    bytes: Vec<u8>,
    case: Case,
}

impl Golden {
    /// Every file of the directory.
    fn all() -> Vec<Golden> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        let files = std::fs::read_dir(directory).expect("the golden vectors are part of the repository");
        let mut all: Vec<_> = files.map(|file| Golden::open(&file.unwrap().path())).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(all.len(), 13, "cases of tools/golden/train.py");
        all
    }

    fn open(path: &std::path::Path) -> Golden {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().expect("metadata");
        let case = serde_json::from_str(&metadata["case"]).unwrap();
        Golden { name: path.file_stem().unwrap().to_string_lossy().into(), bytes, case }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// A float tensor; bf16 is the upper half of an f32.
    fn floats(&self, name: &str) -> Vec<f32> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name));
        let wide = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
        match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::BF16 => view.data().chunks_exact(2).map(wide).collect(),
            other => panic!("{}: {name}: {other:?}", self.name),
        }
    }

    /// An i32 tensor; -1 becomes `u32::MAX`.
    fn integers(&self, name: &str) -> Vec<u32> {
        let file = self.file();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I32);
        view.data().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Names behind a prefix.
    fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> =
            self.file().names().iter().filter_map(|n| n.strip_prefix(prefix).map(str::to_string)).collect();
        names.sort();
        names
    }

    fn batch(&self) -> Batch {
        let cu_seqlens = self.integers("starts").iter().map(|&s| s as usize).collect();
        Batch { tokens: self.integers("tokens"), cu_seqlens, ..Batch::default() }
    }

    /// The network with the parameters of the case.
    fn network(&self, cpu: &Cpu) -> Network {
        let mut network = Network::new(cpu, &self.case.config, 0, self.case.qat).unwrap();
        let mut ours: Vec<String> = network.params().iter().map(|p| p.spec.name.clone()).collect();
        ours.sort();
        assert_eq!(ours, self.names("param/"), "{}: parameters", self.name);
        for name in &ours {
            network.tape.params.set(name, &self.floats(&format!("param/{name}"))).unwrap();
        }
        network
    }
}

fn assert_tensor(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let top = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let close = (got - want).abs() <= TENSOR * top;
        assert!(close, "{what} at {i}: {got}, not {want} (largest magnitude {top})");
    }
}

fn assert_scalar(got: f64, want: f64, relative: f64, what: &str) {
    assert!((got - want).abs() <= relative * want.abs(), "{what}: {got}, not {want}");
}

fn cpus() -> Vec<Cpu> {
    [("scalar", 1), (lowbit_kernels::Isa::choose(None).unwrap().name(), 2)]
        .map(|(isa, threads)| Cpu::new(Some(isa), Some(threads)).unwrap())
        .into()
}

#[test]
fn logits_loss_and_every_gradient_are_those_of_pytorch() {
    for cpu in cpus() {
        for golden in Golden::all() {
            let name = &golden.name;
            let mut network = golden.network(&cpu);
            let logits = network.forward(&golden.batch(), Pass::Train(0));
            assert_tensor(&network.tape.read(&logits), &golden.floats("logits"), &format!("{name}: logits"));
            let targets = golden.integers("targets");
            let count = targets.iter().filter(|&&t| t != u32::MAX).count() as f64;
            let smoothing = golden.case.label_smoothing;
            let sum = network.tape.cross_entropy(&logits, &targets, smoothing, (1.0 / count) as f32);
            assert_scalar(sum / count, golden.case.loss, SCALAR, &format!("{name}: loss"));
            network.tape.backward();
            assert_eq!(golden.names("grad/"), golden.names("param/"), "{name}: every parameter has a gradient");
            for id in network.params().ids() {
                let param = network.params().get(id);
                let what = format!("{name}: gradient of {} on {}", param.spec.name, cpu.isa.name());
                let gradient = network.tape.gradient(id).unwrap_or_else(|| panic!("{what} is missing"));
                assert_tensor(gradient, &golden.floats(&format!("grad/{}", param.spec.name)), &what);
            }
        }
    }
}

/// The sequences of a case.
struct Sequences {
    batch: Batch,
    targets: Vec<u32>,
}

impl Data for Sequences {
    fn len(&self) -> usize {
        self.batch.sequences()
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        let span = |row: usize| self.batch.cu_seqlens[row]..self.batch.cu_seqlens[row + 1];
        *batch = Batch::new(rows.iter().map(|&row| &self.batch.tokens[span(row)]));
        let targets = targets.classes();
        for &row in rows {
            match self.targets.len() == self.len() {
                true => targets.push(self.targets[row]),
                false => targets.extend(&self.targets[span(row)]),
            }
        }
    }

    fn fingerprint(&self) -> String {
        "golden".into()
    }
}

#[derive(Default)]
struct Record(Vec<StepMetrics>);

impl Observer for Record {
    fn step(&mut self, metrics: &StepMetrics, _: u64) -> Control {
        self.0.push(*metrics);
        Control::Continue
    }
}

#[test]
fn ten_updates_follow_pytorch() {
    let cpu = Cpu::new(None, Some(2)).unwrap();
    let mut cases = 0;
    for golden in Golden::all() {
        let Some(reference) = &golden.case.adamw else { continue };
        cases += 1;
        let directory = tempfile::tempdir().unwrap();
        let model_config = ModelConfig::new(golden.case.config.clone(), 512);
        let network = golden.network(&cpu);
        let params: Vec<(&ParamSpec, &[f32])> =
            network.params().iter().map(|p| (&p.spec, p.master().unwrap())).collect();
        let start = directory.path().join("start");
        checkpoint::save_masters(&start, &model_config, None, params).unwrap();
        let from = Checkpoint::open(&start).unwrap();
        let data = Sequences { batch: golden.batch(), targets: golden.integers("targets") };
        let config = TrainConfig {
            steps: Some(reference.losses.len() as u64),
            batch_size: data.len(),
            learning_rate: reference.lr,
            schedule: Schedule::Constant,
            beta1: reference.betas[0],
            beta2: reference.betas[1],
            epsilon: reference.eps,
            weight_decay: reference.weight_decay,
            decay: reference.decay.clone(),
            clip_norm: reference.clip,
            label_smoothing: golden.case.label_smoothing,
            ..TrainConfig::default()
        };
        let job = Job {
            model_config: &model_config,
            tokenizer: None,
            from: Some(&from),
            teacher: None,
            data: &data,
            validation: None,
            config: &config,
        };
        let mut record = Record::default();
        train(&job, &directory.path().join("run"), &cpu, &mut record).unwrap();
        assert_eq!(record.0.len(), reference.losses.len());
        let expected = reference.losses.iter().zip(&reference.gradient_norms);
        for (i, (metrics, (loss, norm))) in record.0.iter().zip(expected).enumerate() {
            let limit = if i == 0 { SCALAR } else { UPDATES };
            assert_scalar(metrics.loss, *loss, limit, &format!("{}: loss of step {i}", golden.name));
            assert_scalar(metrics.grad_norm, *norm, limit, &format!("{}: gradient norm of step {i}", golden.name));
        }
    }
    assert_eq!(cases, 9, "unquantized cases");
}
