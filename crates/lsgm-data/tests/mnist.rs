//! MNIST as it lies in a folder and in the hub's cache. Skipped with a word where the data are absent.

use std::path::{Path, PathBuf};

use lsgm_core::{Dataset, Rng, Split};
use lsgm_data::{
    BinaryConfig, Card, Checksum, Fetched, Hub, ImageSize, Images, Request, State, Target, check, fetch, open_images,
    read_idx, state,
};

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent", path.display());
    None
}

/// The environment of a user whose cache is `home`, without network.
fn offline(home: &Path) -> Hub {
    Hub::from_variables(|name| match name {
        "HF_HOME" => Some(home.display().to_string()),
        "HF_HUB_OFFLINE" => Some("1".into()),
        _ => None,
    })
}

fn pixels(images: &dyn Images) -> (Vec<u8>, Vec<u32>) {
    let bytes = images.size().bytes();
    let mut pixels = vec![0; bytes * images.len()];
    let labels = pixels.chunks_exact_mut(bytes).enumerate().map(|(i, p)| images.read(i, p).unwrap().unwrap());
    let labels = labels.collect();
    (pixels, labels)
}

#[test]
fn the_splits_have_their_published_sizes_and_labels() {
    let Some(dir) = shared("mnist") else { return };
    let config = BinaryConfig { set: "mnist".into(), ..Default::default() };
    for (split, items, labels) in
        [(Split::Train, 55_000, [5, 0, 4, 1]), (Split::Val, 5000, [1, 2, 8, 7]), (Split::Test, 10_000, [7, 2, 1, 0])]
    {
        let set = config.open(split, Some(&dir)).unwrap();
        assert_eq!(set.len(), items);
        let batch = set.batch(&[0, 1, 2, 3], &mut Rng::new(0)).unwrap();
        assert_eq!(batch.x.dims(), [4, 1, 28, 28]);
        assert_eq!(batch.labels.unwrap().to_vec1::<u32>().unwrap(), labels, "{split}");
    }
}

#[test]
fn limit_cuts_training_alone() {
    let Some(dir) = shared("mnist") else { return };
    let config = BinaryConfig { set: "mnist".into(), dir: Some(dir), limit: Some(100), ..Default::default() };
    assert_eq!(config.open(Split::Train, None).unwrap().len(), 100);
    assert_eq!(config.open(Split::Test, None).unwrap().len(), 10_000);
}

#[test]
fn the_cache_holds_the_same_pixels_as_the_idx_files() {
    let (Some(home), Some(dir)) = (shared("hf-home"), shared("mnist")) else { return };
    let (card, hub) = (Card::find("mnist").unwrap(), offline(&home));
    for split in Split::ALL {
        let request = Request::new(&card, split, &hub);
        let cached = open_images(&request).unwrap();
        let idx = open_images(&Request { dir: Some(&dir), ..request }).unwrap();
        assert!(pixels(cached.as_ref()) == pixels(idx.as_ref()), "{split}");
    }
}

#[test]
fn parquet_in_a_folder_goes_before_everything_else() {
    let (Some(home), Some(dir)) = (shared("hf-home"), shared("mnist")) else { return };
    let hub = offline(Path::new("/nonexistent"));
    let snapshots = home.join("hub/datasets--ylecun--mnist/snapshots");
    let folder = std::fs::read_dir(snapshots).unwrap().next().unwrap().unwrap().path().join("mnist");
    let expected = read_idx(&dir.join("t10k-images-idx3-ubyte.gz"), None).unwrap();
    for name in ["mnist", "glyphs"] {
        let card = Card::find(name).unwrap();
        let request = Request { dir: Some(&folder), ..Request::new(&card, Split::Test, &hub) };
        assert!(pixels(open_images(&request).unwrap().as_ref()).0 == expected.pixels());
    }
}

#[test]
fn a_check_finds_the_set_whole() {
    let Some(dir) = shared("mnist") else { return };
    let report = check(&Card::find("mnist").unwrap(), Some(&dir), &offline(&dir)).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.files.len(), 4);
    assert!(report.files.iter().all(|f| f.checksum == Checksum::Match));
    let test = &report.splits[2];
    assert_eq!((test.items, test.size, test.labels.len(), test.blank), (10_000, ImageSize::grey(28, 28), 10, 0));
    assert_eq!((test.labels[&0], test.labels[&9]), (980, 1009));
    // The moments of the training images that everyone normalises by are 0.1307 and 0.3081.
    assert!((test.mean - 0.1325).abs() < 1e-4 && (test.std - 0.3105).abs() < 1e-4, "{} {}", test.mean, test.std);
}

#[test]
fn cached_files_are_fetched_without_network() {
    let Some(home) = shared("hf-home") else { return };
    let (card, hub) = (Card::find("mnist").unwrap(), offline(&home));
    assert!(matches!(state(&card, None, &hub), State::Ready(_)));
    let Fetched::Files(files) = fetch(&card, &hub, &mut |_| panic!("a download")).unwrap() else { panic!() };
    assert!(files.len() == 2 && files.iter().all(|f| f.is_file()));
}

#[test]
fn colour_photographs_come_as_three_channels() {
    let Some(dir) = shared("cifar10-jpeg") else { return };
    let folder = tempfile::tempdir().unwrap();
    let card = folder.path().join("cifar10.toml");
    let text = format!(
        "name = \"cifar10\"\ntitle = \"CIFAR-10\"\nmodality = [\"image\"]\nlicence = \"unknown\"\n\
         image = {{ channels = 3, height = 32, width = 32 }}\n[[sources]]\nkind = \"parquet\"\ndir = {:?}\n\
         columns = {{ image = \"img\", label = \"label\" }}\n\
         parts = {{ train = [\"train-00000-of-00001.parquet\"], test = [\"test-00000-of-00001.parquet\"] }}\n",
        std::fs::canonicalize(&dir).unwrap()
    );
    std::fs::write(&card, text).unwrap();
    let card = Card::find(&card.display().to_string()).unwrap();
    let hub = offline(folder.path());
    let request = Request { limit: Some(300), ..Request::new(&card, Split::Val, &hub) };
    let images = open_images(&request).unwrap();
    assert_eq!((images.len(), images.size()), (300, ImageSize { channels: 3, height: 32, width: 32 }));
    let grey = Target::exact(ImageSize::grey(28, 28));
    let error = open_images(&Request { target: Some(grey), ..request }).err().unwrap().to_string();
    assert!(error.contains("row group") && error.contains("expected 28x28, found 32x32"), "{error}");
}
