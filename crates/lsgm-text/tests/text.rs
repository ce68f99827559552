//! Corpora, tokenizers and the autoencoder, through the modality.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lsgm_core::{
    Arrangement, Assets, Autoencoder, Dataset, Latents, Measure, Modality, ParamStore, Pass, Result, Rng, Split,
    Yardstick,
};
use lsgm_data::Grammar;
use lsgm_text::{
    Corpus, DecoderKind, ModelConfig, Overlong, Positions, Text, TextConfig, Tokenizer, TokenizerConfig,
    TransformerConfig,
};

const LINES: &str = "ab\nabc\nabcdefgh\n\ncab\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(train: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for name in ["train", "val", "test"] {
            std::fs::write(folder.path().join(format!("{name}.txt")), if name == "train" { train } else { LINES })
                .unwrap();
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is measured with the folder's data.
    fn measured(&self, measure: impl FnOnce(&mut Yardstick<'_>) -> Result<Vec<Measure>>) -> Result<Vec<Measure>> {
        measure(&mut Yardstick {
            data_dir: Some(self.path()),
            cache_dir: self.path(),
            device: &Device::Cpu,
            rng: &mut Rng::new(0),
            progress: &mut |_| (),
        })
    }
}

fn config(length: usize) -> TextConfig {
    TextConfig { set: "texts".into(), length, ..TextConfig::default() }
}

fn small(decoder: DecoderKind) -> TransformerConfig {
    TransformerConfig {
        channels: 16,
        heads: 2,
        expansion: 2,
        encoder_blocks: 1,
        decoder_blocks: 1,
        latent_channels: 3,
        decoder,
        ..TransformerConfig::default()
    }
}

fn text(data: &TextConfig, model: TransformerConfig, folder: &Folder) -> Text {
    let assets = Text::prepare(data, Some(folder.path())).unwrap();
    Text::new(data, &ModelConfig::Transformer(model), &assets).unwrap()
}

/// The texts of all items.
fn items(data: &TextConfig, folder: &Folder) -> Result<Vec<String>> {
    let tokenizer = Tokenizer::characters(&"abcdefgh\n".chars().collect())?;
    let corpus = Corpus::open(data, &tokenizer, Split::Test, Some(folder.path()))?;
    let x = corpus.batch(&(0..corpus.len()).collect::<Vec<_>>(), &mut Rng::new(0))?.x;
    x.to_vec2::<u32>()?.iter().map(|row| tokenizer.decode(row)).collect()
}

#[test]
fn entries_that_are_too_long_are_split_dropped_or_refused() {
    let folder = Folder::new(LINES);
    assert_eq!(items(&config(4), &folder).unwrap(), ["ab", "abc", "abcd", "efgh", "cab"]);
    assert_eq!(items(&config(5), &folder).unwrap(), ["ab", "abc", "abcde", "fgh", "cab"]);
    let drop = TextConfig { overlong: Overlong::Drop, ..config(4) };
    assert_eq!(items(&drop, &folder).unwrap(), ["ab", "abc", "cab"]);
    let refuse = TextConfig { overlong: Overlong::Refuse, ..config(4) };
    let error = items(&refuse, &folder).unwrap_err().to_string();
    for part in ["entry 3 of the test split", "more than the 3 tokens", "data.length = 4", "`split` or `drop`"] {
        assert!(error.contains(part), "{error}");
    }
    let nothing = items(&TextConfig { overlong: Overlong::Drop, ..config(2) }, &folder).unwrap_err().to_string();
    assert!(nothing.contains("all 4 entries are longer than 1 tokens"), "{nothing}");
}

#[test]
fn packed_items_are_full_and_keep_their_ends() {
    let folder = Folder::new(LINES);
    let packed = TextConfig { packed: true, ..config(7) };
    let tokenizer = Tokenizer::characters(&"abcdefgh".chars().collect()).unwrap();
    let corpus = Corpus::open(&packed, &tokenizer, Split::Test, Some(folder.path())).unwrap();
    // 2 + 3 + 8 + 3 characters and four ends: two items of seven, the rest is left.
    assert_eq!(corpus.len(), 2);
    let x = corpus.batch(&[0, 1], &mut Rng::new(0)).unwrap().x.to_vec2::<u32>().unwrap();
    assert_eq!(x.iter().flatten().filter(|t| **t == tokenizer.end()).count(), 2);
    let error = Corpus::open(&TextConfig { packed: true, ..config(64) }, &tokenizer, Split::Test, Some(folder.path()));
    assert!(error.unwrap_err().to_string().contains("20 tokens do not fill an item of 64"));
    let data = text(&packed, small(DecoderKind::Parallel), &folder);
    let page = data.render(&Tensor::new(x, &Device::Cpu).unwrap(), Arrangement::Samples).unwrap();
    assert!(String::from_utf8(page[0].bytes.clone()).unwrap().starts_with("ab\nabc\n"));
}

#[test]
fn long_training_entries_are_cut_elsewhere_at_each_visit_and_others_are_not() {
    let folder = Folder::new(&"abcdefgh".repeat(50));
    let tokenizer = Tokenizer::characters(&"abcdefgh".chars().collect()).unwrap();
    let corpus = Corpus::open(&config(16), &tokenizer, Split::Train, Some(folder.path())).unwrap();
    let visit = |i: usize, seed: u64| corpus.batch(&[i], &mut Rng::new(seed)).unwrap().x.to_vec2::<u32>().unwrap();
    let starts: std::collections::BTreeSet<u32> = (0..40).map(|seed| visit(3, seed)[0][0]).collect();
    assert_eq!(starts.len(), 8, "every letter starts an item sooner or later");
    assert_eq!(visit(corpus.len() - 1, 1), visit(corpus.len() - 1, 2), "the last item ends where the text does");
}

#[test]
fn texts_that_a_tokenizer_changes_are_counted() {
    let folder = Folder::new("Upper case\nlower case\n Space before\nUpper again\n");
    let bytes = Tokenizer::bytes().unwrap();
    let altered = |tokenizer: &Tokenizer| {
        Corpus::open(&config(32), tokenizer, Split::Train, Some(folder.path())).unwrap().counts().altered
    };
    assert_eq!(altered(&bytes), 0);
    let mut json: serde_json::Value = serde_json::from_slice(&bytes.to_json().unwrap()).unwrap();
    json["normalizer"] = serde_json::json!({ "type": "Lowercase" });
    assert_eq!(altered(&Tokenizer::from_json(json.to_string().as_bytes(), None, "lower").unwrap()), 3);
    // What is unknown is counted as such.
    assert_eq!(altered(&Tokenizer::characters(&"lower cas".chars().collect()).unwrap()), 0);
}

#[test]
fn unknown_characters_are_counted() {
    let folder = Folder::new("abc\n");
    let tokenizer = Tokenizer::characters(&"abc".chars().collect()).unwrap();
    let corpus = Corpus::open(&config(16), &tokenizer, Split::Test, Some(folder.path())).unwrap();
    assert_eq!((corpus.counts().unknown, corpus.counts().empty, corpus.counts().entries), (5, 1, 4));
}

#[test]
fn a_corpus_smaller_than_a_batch_is_visited_more_than_once() {
    let folder = Folder::new("abc\n");
    let data = text(&config(8), small(DecoderKind::Parallel), &folder);
    let train = data.dataset(Split::Train, Some(folder.path())).unwrap();
    assert_eq!(train.len(), 1);
    assert_eq!(train.batch(&[0, 0, 0], &mut Rng::new(0)).unwrap().x.dims(), [3, 8]);
}

#[test]
fn fitted_tokenizers_keep_any_text() {
    let grammar = Grammar::new(0, Split::Train, 500);
    let folder = Folder::new(&(0..500).map(|i| grammar.sentence(i) + "\n").collect::<String>());
    for kind in ["bpe", "unigram"] {
        let tokenizer: TokenizerConfig =
            serde_json::from_str(&format!("{{\"kind\": \"{kind}\", \"vocabulary\": 300}}")).unwrap();
        let data = TextConfig { tokenizer, ..config(16) };
        let text = text(&data, small(DecoderKind::Parallel), &folder);
        let tokenizer = text.tokenizer();
        assert!(tokenizer.vocabulary() <= 302 && tokenizer.vocabulary() > 256, "{kind}: {}", tokenizer.vocabulary());
        for sentence in ["the cat sees the red fox.", "  Ünknown 🦀 words", "<|end|> is text"] {
            let ids = tokenizer.encode(sentence).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), sentence, "{kind}");
            assert!(!ids.contains(&tokenizer.end()) && !ids.iter().any(|id| Some(*id) == tokenizer.unknown()));
        }
        let cut = tokenizer.encode("the red fox sleeps.").unwrap().len();
        assert!(cut < 14, "{kind} cuts 19 bytes to {cut} tokens");
        let error = text.read_items(&["the cat and the red fox ".repeat(9)]).unwrap_err().to_string();
        assert!(error.contains("do not fit an item of 16"), "{error}");
    }
}

#[test]
fn tokenizers_that_are_not_there_are_told() {
    let folder = Folder::new(LINES);
    let from = |json: &str| {
        let data = TextConfig { tokenizer: serde_json::from_str(json).unwrap(), ..config(16) };
        Text::prepare(&data, Some(folder.path())).unwrap_err().to_string()
    };
    assert!(from("{\"kind\": \"file\", \"from\": \"no/tokenizer.json\"}").contains("no/tokenizer.json"));
    let error = from("{\"kind\": \"hub\", \"from\": \"owner/none\"}");
    assert!(error.contains("`owner/none` is not in the cache") && error.contains("hf download"), "{error}");
    assert!(from("{\"kind\": \"file\"}").contains("data.tokenizer.from"));
    assert!(from("{\"kind\": \"bpe\", \"vocabulary\": 100}").contains("data.tokenizer.vocabulary"));
}

#[test]
fn a_replaced_tokenizer_is_refused() {
    let folder = Folder::new(LINES);
    let mut assets = Text::prepare(&config(8), Some(folder.path())).unwrap();
    assets.insert("tokenizer.json".into(), Tokenizer::bytes().unwrap().to_json().unwrap());
    let model = ModelConfig::default();
    let error = Text::new(&config(8), &model, &assets).unwrap_err().to_string();
    assert!(error.contains("not the tokenizer that this model was trained with"), "{error}");
    let error = Text::new(&config(8), &model, &Assets::new()).unwrap_err().to_string();
    assert!(error.contains("data.tokenizer") && error.contains("tokenizer.json"), "{error}");
}

#[test]
fn configs_that_do_not_fit_name_their_key() {
    let folder = Folder::new(LINES);
    let assets = Text::prepare(&config(8), Some(folder.path())).unwrap();
    let model = |change: fn(&mut TransformerConfig)| {
        let mut config_of_model = small(DecoderKind::Parallel);
        change(&mut config_of_model);
        Text::new(&config(8), &ModelConfig::Transformer(config_of_model), &assets).unwrap_err().to_string()
    };
    assert!(model(|c| c.heads = 3).contains("autoencoder.heads"));
    assert!(model(|c| c.compression = 3).contains("autoencoder.compression"));
    assert!(model(|c| c.latent_noise = -1.0).contains("autoencoder.latent_noise"));
    let data = |change: fn(&mut TextConfig)| {
        let mut data = config(8);
        change(&mut data);
        data.validate().unwrap_err().to_string()
    };
    assert!(data(|d| d.length = 1).contains("data.length"));
    assert!(data(|d| d.set = "multi3k".into()).contains("did you mean `multi30k`?"));
    assert!(data(|d| d.val = Some(lsgm_data::card::Share::Items(3))).contains("data.test"));
}

fn build(data: &Text, seed: u64) -> (ParamStore, Box<dyn Autoencoder>) {
    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(seed));
    let model = data.build(&store.root()).unwrap();
    // Branches that start at zero would hide a mistake.
    let mut rng = Rng::new(seed + 1);
    for (_, var) in store.vars() {
        let noise = (rng.normal_tensor(var.shape().clone(), DType::F32, &Device::Cpu).unwrap() * 0.2).unwrap();
        var.set(&(var.as_tensor() + noise).unwrap()).unwrap();
    }
    (store, model)
}

#[test]
fn latents_have_the_shape_that_the_prior_is_told_and_every_parameter_a_gradient() {
    let folder = Folder::new(LINES);
    for decoder in [DecoderKind::Parallel, DecoderKind::Autoregressive] {
        for compression in [1, 2, 4, 8] {
            for positions in [Positions::Rotary, Positions::Learned] {
                let config_of_model = TransformerConfig { compression, positions, ..small(decoder) };
                let data = text(&config(8), config_of_model, &folder);
                let (store, model) = build(&data, 3);
                let x = data.read_items(&["abc".into(), "h".into()]).unwrap();
                let (posterior, likelihood) = model.reconstruct(&x, &mut Pass::train(&mut Rng::new(1))).unwrap();
                let z = posterior.latents().unwrap().prior;
                assert_eq!(z.dims(), [2, 3, 8 / compression]);
                assert_eq!(model.latent_shape().dims(2), z.dims());
                let kl = posterior.kl_groups().unwrap()[0].sum_all().unwrap();
                let loss = (likelihood.log_prob(&x).unwrap().sum_all().unwrap() - kl).unwrap();
                let gradients = loss.backward().unwrap();
                for (name, var) in store.vars() {
                    assert!(gradients.get(var.as_tensor()).is_some(), "{name}");
                }
                let drawn = likelihood.sample(1.0, &mut Rng::new(2)).unwrap();
                assert_eq!((drawn.dims(), drawn.dtype()), (&[2, 8][..], DType::U32));
                data.render(&drawn, Arrangement::Pairs).unwrap();
            }
        }
    }
}

#[test]
fn probabilities_of_all_texts_sum_to_one_under_an_autoregressive_decoder_too() {
    let folder = Folder::new("ab\n");
    let data = text(&config(3), small(DecoderKind::Autoregressive), &folder);
    let (_, model) = build(&data, 5);
    let z = Rng::new(4).normal_tensor((1, 3, 3), DType::F32, &Device::Cpu).unwrap();
    let likelihood = model.decode(&Latents::from(z), &mut Pass::eval(&mut Rng::new(1))).unwrap();
    let vocabulary = data.tokenizer().vocabulary() as u32;
    let end = data.tokenizer().end();
    // Behind the first end only ends, so that each text is counted once. A decoder that saw what comes would not sum to one.
    let rows = (0..vocabulary.pow(3)).map(|i| [i / vocabulary.pow(2), i / vocabulary % vocabulary, i % vocabulary]);
    let texts = rows.filter(|row| row.windows(2).all(|w| w[0] != end || w[1] == end));
    let prob = |row: [u32; 3]| {
        likelihood.log_prob(&Tensor::new(&[row], &Device::Cpu).unwrap()).unwrap().to_vec1::<f32>().unwrap()[0].exp()
    };
    let total: f32 = texts.map(prob).sum();
    assert!((total - 1.0).abs() < 1e-4, "{total}");
    let mode = likelihood.mean().unwrap().to_vec2::<u32>().unwrap();
    assert_eq!(mode, likelihood.sample(0.0, &mut Rng::new(0)).unwrap().to_vec2::<u32>().unwrap());
}

#[test]
fn the_extent_of_a_text_is_its_tokens_with_its_end() {
    let folder = Folder::new(LINES);
    let data = text(&config(8), small(DecoderKind::Parallel), &folder);
    let (_, model) = build(&data, 3);
    let items = data.read_items(&["abc".into(), "a".into(), String::new()]).unwrap();
    assert_eq!(items.dims(), [3, 8]);
    assert_eq!(model.extent(&items).unwrap().unwrap().to_vec1::<f32>().unwrap(), [4.0, 2.0, 1.0]);
}

#[test]
fn noise_on_the_latents_is_for_training_alone() {
    let folder = Folder::new(LINES);
    let noisy = TransformerConfig { latent_noise: 0.5, ..small(DecoderKind::Parallel) };
    let data = text(&config(8), noisy, &folder);
    let (_, model) = build(&data, 3);
    let x = data.read_items(&["abc".into()]).unwrap();
    let z = Latents::from(Rng::new(4).normal_tensor((1, 3, 8), DType::F32, &Device::Cpu).unwrap());
    let of = |training: bool, seed: u64| {
        let mut rng = Rng::new(seed);
        let mut pass = if training { Pass::train(&mut rng) } else { Pass::eval(&mut rng) };
        model.decode(&z, &mut pass).unwrap().log_prob(&x).unwrap().to_vec1::<f32>().unwrap()[0]
    };
    assert_eq!(of(false, 1), of(false, 2));
    assert_ne!(of(true, 1), of(true, 2));
}

fn amounts(data: &TextConfig, tokenizer_of: &str, folder: &Folder, items: usize) -> (f64, f64, f64) {
    let tokenizer: TokenizerConfig = serde_json::from_str(&format!("{{\"kind\": \"{tokenizer_of}\"}}")).unwrap();
    let data = TextConfig { tokenizer, ..data.clone() };
    let text = text(&data, small(DecoderKind::Parallel), folder);
    let nats = items as f64;
    let measures = folder.measured(|yardstick| text.measure_nelbo(1.0, 0.0, items, Split::Test, yardstick)).unwrap();
    let value = |name: &str| measures.iter().find(|m| m.name == name).unwrap().value;
    (
        nats / value("nats_per_token"),
        nats / value("bits_per_char") / std::f64::consts::LN_2,
        nats / value("perplexity_word").ln(),
    )
}

/// Tokens, characters and words of all items are those of the text, wherever it is cut.
#[test]
fn amounts_do_not_depend_on_where_a_text_is_cut() {
    let close = |a: (f64, f64, f64), b: (f64, f64, f64)| {
        assert!((a.0 - b.0).abs() + (a.1 - b.1).abs() + (a.2 - b.2).abs() < 1e-6, "{a:?} {b:?}");
    };
    let folder = Folder::new("ab cd\n");
    let write = |test: &str| std::fs::write(folder.path().join("test.txt"), test).unwrap();
    // Four entries of 2, 6, 5 and 3 characters, two of them of two words, with their ends: 20 tokens in items of 4.
    write("ab\nab cde\nab cd\ncab\n");
    let packed = TextConfig { packed: true, ..config(4) };
    close(amounts(&packed, "bytes", &folder, 5), (20.0, 20.0, 10.0));
    // One entry of 12 characters, 23 bytes, an end.
    write("ä€ß 🦀 é €ö x\n");
    for length in [2, 3, 5, 7, 24, 30] {
        let items = 23 / length + 1;
        close(amounts(&config(length), "bytes", &folder, items), (24.0, 13.0, 6.0));
    }
}

/// Sequences of a packed corpus begin anew behind an end, for n-gram models and statistics too.
#[test]
fn packed_text_is_measured_entry_by_entry() {
    let folder = Folder::new(&"ab cd\ncd ab\n".repeat(20));
    std::fs::write(folder.path().join("test.txt"), "ab cd\ncd ab\n".repeat(4)).unwrap();
    let data = text(&TextConfig { packed: true, ..config(12) }, small(DecoderKind::Parallel), &folder);
    let baselines = folder.measured(|yardstick| data.measure_baselines(4, Split::Test, yardstick)).unwrap();
    let fourgram = baselines.iter().find(|m| m.name == "fourgram_bits_per_char").unwrap().value;
    assert!(fourgram < 0.6, "entries are all but certain once they have begun: {fourgram} bits");
    let x = data.dataset(Split::Test, Some(folder.path())).unwrap().batch(&[0, 1], &mut Rng::new(0)).unwrap().x;
    let samples = folder.measured(|yardstick| data.measure_samples(&x, yardstick)).unwrap();
    let value = |name: &str| samples.iter().find(|m| m.name == name).unwrap().value;
    // Two items of two entries: eight words, two of them different.
    assert!((value("distinct_1") - 0.25).abs() < 1e-12, "{}", value("distinct_1"));
    // They are held-out text themselves, but for not being known to begin an entry.
    let (samples, text) = (value("sample_log_perplexity"), value("heldout_log_perplexity"));
    assert!(samples > text && samples < text + 0.5, "{samples} {text}");
}

/// A model is measured where its training data are not, too.
#[test]
fn without_the_training_split_there_are_fewer_figures() {
    let folder = Folder::new(LINES);
    let data = text(&config(16), small(DecoderKind::Parallel), &folder);
    std::fs::remove_file(folder.path().join("train.txt")).unwrap();
    assert!(folder.measured(|yardstick| data.measure_baselines(4, Split::Test, yardstick)).unwrap().is_empty());
    let x = data.read_items(&["abc".into()]).unwrap();
    let samples = folder.measured(|yardstick| data.measure_samples(&x, yardstick)).unwrap();
    assert!(samples.iter().any(|m| m.name == "distinct_1") && !samples.iter().any(|m| m.name.starts_with("copied")));
}

#[test]
fn keys_that_a_tokenizer_does_not_have_are_refused() {
    for json in ["{\"kind\": \"characters\", \"vocabulary\": 9}", "{\"kind\": \"bytes\", \"from\": \"x\"}"] {
        assert!(serde_json::from_str::<TokenizerConfig>(json).unwrap_err().to_string().contains("unknown field"));
    }
    assert_eq!(serde_json::to_string(&TokenizerConfig::default()).unwrap(), "{\"kind\":\"characters\"}");
}

#[test]
fn figures_are_in_the_units_they_say() {
    let folder = Folder::new(&"ab\nabc\ncab\nabcdefgh\n".repeat(10));
    let data = text(&config(16), small(DecoderKind::Parallel), &folder);
    // ab, abc, abcdefgh, cab with their ends: 3 + 4 + 9 + 4 tokens, as many characters, 2 words each.
    let measures = folder.measured(|yardstick| data.measure_nelbo(10.0, 1.0, 4, Split::Test, yardstick)).unwrap();
    let value = |name: &str| measures.iter().find(|m| m.name == name).unwrap().value;
    assert!((value("nats_per_token") - 2.0).abs() < 1e-12);
    assert!((value("bits_per_char") - 2.0 / std::f64::consts::LN_2).abs() < 1e-12);
    assert!((value("perplexity_word") - 5f64.exp()).abs() < 1e-9);
    let baselines = folder.measured(|yardstick| data.measure_baselines(4, Split::Test, yardstick)).unwrap();
    assert_eq!(baselines.len(), 4);
    assert!(baselines[1].value < baselines[0].value && baselines.iter().all(|m| m.value > 0.0 && m.value < 5.0));
    let x = data.read_items(&["abc".into(), "cab".into()]).unwrap();
    let other = data.read_items(&["abc".into(), "cbb".into()]).unwrap();
    let back = folder.measured(|yardstick| data.measure_reconstructions(&x, &other, yardstick)).unwrap();
    assert!((back[0].value - 7.0 / 8.0).abs() < 1e-12 && back[1].value == 0.5);
    let of_samples = folder.measured(|yardstick| data.measure_samples(&x, yardstick)).unwrap();
    let copied = of_samples.iter().find(|m| m.name == "copied_whole").unwrap();
    assert_eq!(copied.value, 1.0);
    assert!(!of_samples.iter().any(|m| m.name == "grammatical"));
}
