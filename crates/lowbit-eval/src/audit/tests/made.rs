//! Faults, each with the check that must find it and what that check must say.

use super::*;

/// A check, a report with a fault, facts beside it, and what the finding says.
type Fault = (u32, &'static str, &'static str, &'static str);

const FAULTS: &[Fault] = &[
    (10, "# T\n\n| Model | Accuracy | n |\n|---|---|---|\n| a | 91.87% | 872 |\n", "", "of 872 would be"),
    (10, "# T\n\n| Model | Accuracy |\n|---|---|\n| a | 91.87% (n = 872) |\n", "", "of 872 would be"),
    (10, "# T\n\n| Model | Accuracy |\n|---|---|\n| a | 91.96% (801/872) |\n", "", "801/872 is 91.8578 %"),
    (11, "# T\n\n| Task | Score |\n|---|---|\n| a | 90.1 |\n| b | 80.1 |\n| Average | 91.5 |\n", "", "rows above"),
    (
        11,
        "# T\n\n| Model | MNLI | QNLI | Avg |\n|---|---|---|---|\n| a | 88.0 | 93.7 | 94.2 |\n",
        "",
        "between its parts",
    ),
    (
        25,
        "# T\n\n| Batch | Latency (ms) | Throughput (samples/s) |\n|---|---|---|\n| 1 | 8.00 | 125.0 |\n| 8 | 40.0 | 200.0 |\n",
        "",
        "batch over the latency",
    ),
    (
        25,
        "# T\n\n| Batch | Latency (ms) | Throughput (samples/s) |\n|---|---|---|\n| 1 | 8.00 | 125.0 |\n| 8 | 40.0 | 200.0 |\n| 32 | 100.0 | 420.0 |\n",
        "",
        "gives 320",
    ),
    (1, "# T\n\n- 71.9% energy reduction vs others\n", "", "no value of it anywhere"),
    (
        1,
        "# T\n\n| Model | Tokens/sec |\n|---|---|\n| AlphaNet | 20 |\n\nAlphaNet has zero latency.\n",
        "",
        "one token takes 50.0 ms",
    ),
    (
        2,
        "# T\n\n| Batch | Old (ms) | New (ms) | Speedup |\n|---|---|---|---|\n| 1 | 10.0 | 5.0 | 2.0x |\n| 2 | 12.0 | 5.0 | 3.0x |\n",
        "",
        "is 2.40",
    ),
    (
        2,
        "# T\n\n| Layer | Full (MB) | Small (MB) | Reduction |\n|---|---|---|---|\n| a | 4.00 | 1.00 | 70.0% |\n",
        "",
        "is 75.0",
    ),
    (
        2,
        "# T\n\n| Model | Memory (MB) | Compression |\n|---|---|---|\n| Baseline | 100.0 | 1.00x |\n| Small | 50.0 | 3.00x |\n",
        "",
        "gives 2.00",
    ),
    (
        2,
        "# T\n\n| Set | Full accuracy | Small accuracy | Difference |\n|---|---|---|---|\n| a | 98.5% | 98.2% | -0.5% |\n",
        "",
        "is -0.300",
    ),
    (
        3,
        "# T\n\nAlphaNet achieves the highest accuracy.\n\n| Model | Accuracy |\n|---|---|\n| AlphaNet | 90.1% |\n| BetaNet | 91.2% |\n",
        "",
        "BetaNet 91.2%",
    ),
    (
        3,
        "# T\n\nAlphaNet needs 70% less memory than BetaNet.\n\n| Model | Memory (GB) |\n|---|---|\n| AlphaNet | 2.8 |\n| BetaNet | 5.6 |\n",
        "",
        "50.0",
    ),
    (
        4,
        "# T\n\n- BetaNet shows only 1.75% accuracy drop\n\n| Model | Accuracy |\n|---|---|\n| AlphaNet | 91.87% |\n| BetaNet | 90.12% |\n",
        "",
        "relative change is 1.90 %",
    ),
    (4, "# T\n\n| Model | Tokens/Watt |\n|---|---|\n| a | 1.0 |\n", "", "tokens per joule"),
    (4, "# T\n\n| Model | Latency |\n|---|---|\n| a | 5 ms |\n| b | 3 GB |\n", "", "one column"),
    (
        5,
        "# T\n\nNext character.\n\n| Model | Perplexity | BPC |\n|---|---|---|\n| a | 13.89 | 0.47 |\n",
        "",
        "divided by 8",
    ),
    (
        6,
        "# T\n\n| Program | enwik8 (bytes) | bits per byte |\n|---|---|---|\n| gzip | 36445248 | 2.716 |\n",
        "",
        "2.9156",
    ),
    (7, "# T\n\n| Dataset | Model | Accuracy |\n|---|---|---|\n| CIFAR-10 | MLP | 85.2% |\n", "", "implausible"),
    (
        7,
        "# T\n\n| Model | Accuracy |\n|---|---|\n| a | 80.00% |\n",
        "[[anchor]]\nrow = \"a\"\ncolumn = \"Accuracy\"\nvalue = 70.0\nn = 1000\nsource = \"a paper\"",
        "above the published 70 %",
    ),
    (
        8,
        "# T\n\nStrong compression of enwik8.\n\n| Model | Perplexity |\n|---|---|\n| enwik8 net | 13.89 |\n",
        "",
        "gzip -9 2.916",
    ),
    (
        9,
        "# T\n\n| Model | Perplexity | Accuracy |\n|---|---|---|\n| a | 4.00 | 0.10 |\n| b | 2.00 | 0.20 |\n",
        "",
        "misaligned",
    ),
    (10, "# T\n\nTest samples: 872\n\n| Model | Accuracy |\n|---|---|\n| a | 91.87% |\n", "", "801/872 is 91.86 %"),
    (
        11,
        "# T\n\n| Run | Min (ms) | Mean (ms) | Max (ms) |\n|---|---|---|---|\n| a | 5.0 | 4.0 | 9.0 |\n",
        "",
        "min <= mean <= max",
    ),
    (11, "# T\n\n| Model | Accuracy |\n|---|---|\n| a | 103.0% |\n", "", "no share"),
    (
        12,
        "# T\n\nTest samples: 7,600\n\na has the best accuracy.\n\n| Model | Accuracy |\n|---|---|\n| a | 94.70% |\n| b | 94.62% |\n",
        "",
        "6 of 7600 answers",
    ),
    (
        13,
        "# T\n\nBPC is good\n",
        "[[sample]]\nat = \"BPC\"\nscored = 2560\nof = 100000000\nunit = \"bytes\"\nsource = \"the code\"",
        "0.0026 %",
    ),
    (
        14,
        "# T\n\non wikitext-2 and wikitext-103\n",
        "[[same]]\nnames = [\"wikitext-2\", \"wikitext-103\"]\nsource = \"cards\"",
        "one data set",
    ),
    (
        15,
        "# T\n\nModel:\n- Weights: 5% of memory\n- Activations: 5% of memory\n- Buffers: 90% of memory saved\n",
        "",
        "no allocation",
    ),
    (
        15,
        "# T\n\n| Model | Memory (MB) |\n|---|---|\n| a | 100.00 |\n",
        "[[ledger]]\nat = \"100.00\"\nparts = { weights = 100000000 }\nmissing = { scales = 5000000 }",
        "105.00 MB",
    ),
    (
        16,
        "# T\n\n- AlphaNet (2B parameters, 1-bit quantization)\n\n| Model | Memory (GB) |\n|---|---|\n| AlphaNet | 2.8 |\n",
        "",
        "11.2 bits per parameter",
    ),
    (
        17,
        "# T\n\n## Inference\n\n| Model | Memory (GB) |\n|---|---|\n| AlphaNet | 2.8 |\n\n## Training\n\n| Model | Peak memory (GB) |\n|---|---|\n| AlphaNet | 2.8 |\n",
        "",
        "optimizer take no memory",
    ),
    (
        18,
        "# T\n\n| Parameters | Full (MB) | Small (MB) |\n|---|---|---|\n| 100K | 0.4 | 0.1 |\n| 1M | 4.0 | 1.0 |\n| 100M | 400.0 | 100.0 |\n",
        "",
        "formulas",
    ),
    (19, "# T\n\nAverage of 100 runs with warm-up.\n", "", "no spread"),
    (
        20,
        "# T\n\n| Batch | Old (ms) | New (ms) | Speedup |\n|---|---|---|---|\n| 1 | 1.2 | 0.8 | 1.5x |\n| 8 | 4.5 | 3.0 | 1.5x |\n| 32 | 8.8 | 5.9 | 1.5x |\n| 64 | 12.0 | 8.0 | 1.5x |\n",
        "",
        "computed, not measured",
    ),
    (
        21,
        "# T\n\n## Llama\n- Hardware: RTX 4090\n- Speed: 100 tokens/sec\n- Memory: 140GB\n",
        "",
        "fit none of 1 x 24 GB",
    ),
    (
        22,
        "# T\n\n| Model | Power (W) | Time (s) | Energy (J) |\n|---|---|---|---|\n| a | 10.0 | 10.0 | 500.0 |\n",
        "",
        "100",
    ),
    (22, "# T\n\n## A\n- Power: 15-28W (CPU TDP)\n- Memory: 5GB\n", "", "not a measured power"),
    (
        23,
        "# T\n\n| Model | Tokens/sec | Hardware |\n|---|---|---|\n| a | 20 | Laptop |\n| b | 90 | Server |\n| c | 40 | Phone |\n",
        "",
        "unlike hardware",
    ),
    (
        24,
        "# T\n\nAlphaNet is 4x slower than BetaNet.\n\n| Model | Tokens/sec |\n|---|---|\n| AlphaNet | 16-28 |\n| BetaNet | 80-120 |\n",
        "",
        "2.86 to 7.50",
    ),
    (
        25,
        "# T\n\n| Model | Latency (ms) | Throughput (samples/s) |\n|---|---|---|\n| a | 8.73 | 114.55 |\n| b | 10.41 | 96.06 |\n",
        "",
        "not a second measurement",
    ),
    (
        26,
        "# T\n\nIf speed is priority: use BetaNet.\n\n| Model | Latency (ms) |\n|---|---|\n| AlphaNet | 8.73 |\n| BetaNet | 29.39 |\n",
        "",
        "3.37 times",
    ),
    (
        27,
        "# T\n\nMinimal accuracy loss (<0.5%).\n\n| Set | Full MSE | Small MSE | Difference |\n|---|---|---|---|\n| a | 0.025 | 0.026 | +0.001 |\n",
        "",
        "+4.0 %",
    ),
    (
        28,
        "# T\n\nAll keep >90% of baseline accuracy.\n\n| Model | Accuracy |\n|---|---|\n| Baseline | 94.62% |\n| a | 94.54% |\n",
        "",
        "separates nothing",
    ),
    (
        29,
        "# T\n\n| Model | Parameters |\n|---|---|\n| AlphaNet | 185M |\n\nIs it better than the 230M one?\n",
        "",
        "none of the models",
    ),
    (
        30,
        "# T\n\n- AlphaNet (2B parameters, 1-bit quantization)\n\n| Model | Accuracy |\n|---|---|\n| AlphaNet | 90% |\n\nInvestigate 2-bit quantization for AlphaNet\n",
        "",
        "labelled 1-bit",
    ),
    (
        31,
        "# T\n\nNet L (200M parameters):\nGood perplexity (13.89)\n\nNet S (20M parameters):\nGood perplexity (11.76)\n",
        "",
        "larger and worse",
    ),
    (
        32,
        "# T\n\nA:\n  Per-Class F1:\n  - World: 90.00%\n  - Sports: 80.00%\n  Scores:\n  - F1-Score (Macro): 88.00%\n",
        "",
        "mean of 2 classes is 85",
    ),
    (
        33,
        "# T\n\n| Model | Tokens/sec | Power (W) | Cost/M tokens |\n|---|---|---|---|\n| a | 16-28 | 15-28 | $0 |\n",
        "",
        "0.0729",
    ),
    (34, "# T\n\n## GPU (Future)\n\n| GPU | Time (ms) |\n|---|---|\n| A | 5.0 |\n", "", "table of the future"),
    (35, "# T\n\nUpdated: [Current Date]\n", "", "never filled in"),
    (35, "# T\n\nchange -0.00%\n", "", "no sign"),
    (
        36,
        "# T\n\n```\nA: \u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588} 8/10\nB: \u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588} 2/10\n```\n",
        "",
        "not proportional",
    ),
    (
        37,
        "# T\n\n| Model | Time (min) | Power (W) |\n|---|---|---|\n| a | 12.45 | 89.67 |\n| b | 89.67 | 289.45 |\n",
        "",
        "same digits",
    ),
    (38, "# T\n\n71.9% energy reduction\n", "", "arXiv 2410.16144"),
    (
        39,
        "# T\n\n| Model | Tokens/sec |\n|---|---|\n| AlphaNet | 20 |\n\nAlphaNet has better quality.\n",
        "",
        "no score",
    ),
    (
        42,
        "# T\n\n| Model | Prefill (tok/s) | Decode (tok/s) |\n|---|---|---|\n| a | 41.5 | 41.5 |\n",
        "",
        "one of them was not measured",
    ),
    (
        43,
        "# T\n\n| Model | 1 thread (tok/s) | 16 threads (tok/s) |\n|---|---|---|\n| a | 12.5 | 12.5 |\n",
        "",
        "was not used",
    ),
    (43, "# T\n\n| Threads | Latency (ms) |\n|---|---|\n| 1 | 12.5 |\n| 16 | 12.5 |\n", "", "was not used"),
    (
        44,
        "# T\n\n| Program | Decode (tok/s) |\n|---|---|\n| other | 12.5 |\n",
        "[[anchor]]\nrow = \"other\"\ncolumn = \"Decode (tok/s)\"\nvalue = 20.0\nweaker_machine = true\nsource = \"its README\"",
        "20 published",
    ),
];

#[test]
fn every_check_of_text_finds_its_fault() {
    let mut wrong = Vec::new();
    for (check, text, facts, said) in FAULTS {
        let findings = found(text, facts);
        if !findings.iter().any(|f| f.check == *check && f.text.contains(said)) {
            wrong.push(format!("check {check} should say {said:?} of\n{text}\nfound:\n{}", told(&findings)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_check_of_text_has_a_fault_here() {
    for check in CHECKS.iter().filter(|c| c.text.is_some()) {
        assert!(FAULTS.iter().any(|f| f.0 == check.id), "check {} has no fault", check.id);
    }
}

#[test]
fn the_list_is_of_forty_and_a_few() {
    let ids: Vec<u32> = CHECKS.iter().map(|c| c.id).collect();
    assert!((1..=40).all(|id| ids.contains(&id)) && ids.is_sorted(), "{ids:?}");
    for check in CHECKS {
        assert!(check.records.is_some() || check.text.is_some(), "check {} does nothing", check.id);
        assert!(!check.name.is_empty() && !check.reads.is_empty());
    }
    assert_eq!(list().len(), CHECKS.len());
}

#[test]
fn what_is_consistent_raises_nothing() {
    const RIGHT: &[&str] = &[
        "# T\n\n### Memory, load, training\n\n| Model | Peak memory | Peak memory of training |\n|---|---|---|\n| a | 16.3 MB | 445 MB |\n\n### Where memory goes\n\n| Model | Peak memory | Training, weights | Peak memory of training |\n|---|---|---|---|\n| a | 16.3 MB | 2.70 MB | 445 MB |\n",
        "# T\n\n| what | ours | theirs |\n|---|---|---|\n| decode | 82 tokens/s | 31 |\n| prompt | 403 tokens/s | 71 |\n| share | 93 to 98 % | |\n",
        "# T\n\nno placeholder, no negative zero\n",
        "# T\n\n| Variant | Weights | Times smaller | Bits per byte of enwik8 |\n|---|---|---|---|\n| a | 4.000 MB | reference | 2.113 |\n| b | 1.004 MB | 3.98x | 2.114 |\n",
        "# T\n\n| Model | Decode (ms) | Speedup |\n|---|---|---|\n| baseline | 10.0 | 1.00x |\n| a | 5.0 | 2.00x |\n",
    ];
    for text in RIGHT {
        let findings = found(text, "");
        assert!(findings.is_empty(), "{text}\n{}", told(&findings));
    }
}

#[test]
fn hostile_files_end() {
    for text in [
        "",
        "|",
        "| a |\n|---|\n",
        "|a|b|\n|-|-|\n|1|",
        "```\n",
        "####\n\n====\n",
        "- : :\n",
        "(((((",
        "\u{2588}",
        "1-2-3-4e999 e9 1e1",
        "a\u{301}%\u{130} accuracy drop 5.5%",
    ] {
        let _ = found(text, "");
        let _ = of_text(text, Syntax::Html, Facts::default());
        let _ = of_text(text, Syntax::Delimited(b','), Facts::default());
    }
}

#[test]
fn tables_of_every_syntax_are_audited() {
    let html = "<h1>T</h1>\n<table><tr><th>Batch</th><th>Old (ms)</th><th>New (ms)</th><th>Speedup</th></tr>\n<tr><td>1</td><td>10.0</td><td>5.0</td><td>3.0x</td></tr></table>";
    let csv = "batch,old (ms),new (ms),speedup\n1,10.0,5.0,3.0x\n";
    for (text, syntax, line) in [(html, Syntax::Html, 3), (csv, Syntax::Delimited(b','), 2)] {
        let findings = of_text(text, syntax, Facts::default()).unwrap().findings;
        assert!(findings.iter().any(|f| f.check == 2 && f.lines == [line]), "{}", told(&findings));
    }
}

#[test]
fn a_page_shows_findings_beside_their_lines() {
    let mut made = of_text("# <T>\n\nchange -0.00%\n", Syntax::Markdown, Facts::default()).unwrap();
    made.path = "a&b.md".into();
    let page = made.page();
    assert!(page.contains("a&amp;b.md") && page.contains("&lt;T&gt;") && page.contains("id=\"L3\" class=\"bad\""));
    assert!(["<script", "http:", "https:"].iter().all(|foreign| !page.contains(foreign)), "a page asks for nothing");
    assert_eq!(made.json()["findings"][0]["lines"][0], 3);
    assert!(made.in_words()[0].starts_with("a&b.md:3: error"));
}
