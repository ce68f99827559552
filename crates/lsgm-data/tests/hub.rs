//! The hub's cache and environment variables, and downloads from a small server on this machine.

use std::collections::BTreeMap;
use std::path::Path;

use lsgm_data::{Card, Checksum, DataError, Fetched, Hub, State, check, fetch, state};

fn hub(variables: &[(&str, &str)]) -> Hub {
    let variables: BTreeMap<_, _> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Hub::from_variables(move |name| variables.get(name).cloned())
}

#[test]
fn the_cache_is_where_the_hubs_own_tools_put_it() {
    for (variables, cache) in [
        (&[("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b"), ("HOME", "/c")][..], "/a"),
        (&[("HF_HUB_CACHE", ""), ("HF_HOME", "/b"), ("HOME", "/c")], "/b/hub"),
        (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/c")], "/x/huggingface/hub"),
        (&[("HOME", "/c")], "/c/.cache/huggingface/hub"),
    ] {
        assert_eq!(hub(variables).cache(), Path::new(cache), "{variables:?}");
    }
    for (value, offline) in [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false)] {
        assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).is_offline(), offline, "{value}");
    }
}

#[test]
fn the_token_is_not_printed() {
    assert!(!format!("{:?}", hub(&[("HF_TOKEN", "hf_secret")])).contains("secret"));
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn both_layouts_are_found_in_the_cache() {
    for (revision, train, test) in [
        ("main", "mnist/train-00000-of-00001.parquet", "mnist/test-00000-of-00001.parquet"),
        ("refs/convert/parquet", "mnist/train/0000.parquet", "mnist/test/0000.parquet"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let hub = hub(&[("HF_HOME", home.path().to_str().unwrap()), ("HF_HUB_OFFLINE", "1")]);
        let card = Card::find("mnist").unwrap();
        let State::Absent(looked_for) = state(&card, None, &hub) else { panic!("nothing is there") };
        assert!(looked_for.contains(train) && looked_for.contains("lsgm data fetch"), "{looked_for}");
        let repo = home.path().join("hub/datasets--ylecun--mnist");
        write(&repo.join("refs").join(revision), &format!("{COMMIT}\n"));
        write(&repo.join("snapshots").join(COMMIT).join(train), "");
        assert!(matches!(state(&card, None, &hub), State::Absent(_)));
        write(&repo.join("snapshots").join(COMMIT).join(test), "");
        assert!(matches!(state(&card, None, &hub), State::Ready(_)), "{revision}");
    }
}

#[test]
fn offline_and_not_cached_is_a_clear_error() {
    let hub = hub(&[("HF_HOME", "/nonexistent"), ("HF_HUB_OFFLINE", "1")]);
    let error = fetch(&Card::find("mnist").unwrap(), &hub, &mut |_| ()).unwrap_err();
    assert!(matches!(error, DataError::Download { .. }));
    let text = error.to_string();
    for word in ["ylecun/mnist", "HF_HUB_OFFLINE", "--data DIR", "-00000-of-00001.parquet"] {
        assert!(text.contains(word), "{text}");
    }
    let error = fetch(&Card::find("omniglot").unwrap(), &hub, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("https://github.com/yburda/iwae") && error.contains("--data DIR"), "{error}");
    assert_eq!(fetch(&Card::find("glyphs").unwrap(), &hub, &mut |_| ()).unwrap(), Fetched::BuiltIn);
}

#[cfg(feature = "hub")]
mod server {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    /// Path and authorization of requests.
    type Requests = Arc<Mutex<Vec<(String, Option<String>)>>>;

    /// Serve `content` for every file under `/datasets/ylecun/mnist/resolve/main/`; answer 404 to everything else. The
    /// requests are kept. Each file has its path as its tag, if no other is given.
    fn serve(content: &'static [u8], tag: Option<&'static str>) -> (String, Requests) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = requests.clone();
        std::thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap(), content, tag, &kept)));
        (address, requests)
    }

    fn answer(mut stream: TcpStream, content: &[u8], tag: Option<&str>, kept: &Requests) {
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let lines: Vec<String> = lines.take_while(|l| !l.is_empty()).collect();
        let header = |name: &str| {
            lines.iter().filter_map(|l| l.split_once(": ")).find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v)
        };
        let path = lines.first().and_then(|l| l.split(' ').nth(1)).unwrap_or_default().to_owned();
        kept.lock().unwrap().push((path.clone(), header("authorization").map(str::to_owned)));
        if !path.starts_with("/datasets/ylecun/mnist/resolve/main/") {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            return;
        }
        let range = header("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
        let (start, end) = range.map_or((0, content.len()), |(start, end)| {
            (start.parse().unwrap(), end.parse::<usize>().map_or(content.len(), |e| (e + 1).min(content.len())))
        });
        let body = &content[start..end];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n\
             ETag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\nConnection: close\r\n\r\n",
            body.len(),
            end - 1,
            content.len(),
            tag.map_or(path.replace('/', "_"), str::to_owned)
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
    }

    #[test]
    fn a_fetch_downloads_once_into_the_cache() {
        let (endpoint, requests) = serve(b"not really parquet", None);
        let home = tempfile::tempdir().unwrap();
        let variables =
            [("HF_HOME", home.path().to_str().unwrap()), ("HF_ENDPOINT", &endpoint), ("HF_TOKEN", "hf_secret")];
        let card = Card::find("mnist").unwrap();
        let mut done = BTreeMap::new();
        let fetched =
            fetch(&card, &hub(&variables), &mut |p| assert!(done.insert(p.file.to_owned(), p.done) <= Some(p.total)));
        let Fetched::Files(files) = fetched.unwrap() else { panic!() };
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|f| std::fs::read(f).unwrap() == b"not really parquet"));
        assert_eq!(done.into_values().collect::<Vec<_>>(), [18, 18]);
        assert!(requests.lock().unwrap().iter().all(|(_, token)| token.as_deref() == Some("Bearer hf_secret")));
        let asked = requests.lock().unwrap().len();
        fetch(&card, &hub(&variables), &mut |_| ()).unwrap();
        let offline = hub(&[variables[0], ("HF_HUB_OFFLINE", "1")]);
        fetch(&card, &offline, &mut |_| ()).unwrap();
        assert_eq!(requests.lock().unwrap().len(), asked);
    }

    #[test]
    fn a_file_that_the_server_lacks_is_named() {
        let (endpoint, requests) = serve(b"", None);
        let home = tempfile::tempdir().unwrap();
        let hub = hub(&[("HF_HOME", home.path().to_str().unwrap()), ("HF_ENDPOINT", &endpoint)]);
        let card = Card::find("fashion-mnist").unwrap();
        let error = fetch(&card, &hub, &mut |_| ()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("zalando-datasets/fashion_mnist") && text.contains("no such file"), "{text}");
        assert!(!lsgm_core::Error::from(error).is_input());
        // Both layouts were asked for.
        assert!(requests.lock().unwrap().iter().any(|(path, _)| path.contains("refs%2Fconvert%2Fparquet")));
    }

    #[test]
    fn a_damaged_download_is_not_kept() {
        const TAG: &str = "00000000000000000000000000000000000000000000000000000000deadbeef";
        let (endpoint, _) = serve(b"not what the tag says", Some(TAG));
        let home = tempfile::tempdir().unwrap();
        let hub = hub(&[("HF_HOME", home.path().to_str().unwrap()), ("HF_ENDPOINT", &endpoint)]);
        let card = Card::find("mnist").unwrap();
        let error = fetch(&card, &hub, &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("checksum is wrong"), "{error}");
        assert!(matches!(state(&card, None, &hub), State::Absent(_)));
        assert!(!home.path().join("hub/datasets--ylecun--mnist/blobs").join(TAG).exists());
    }

    #[test]
    fn a_sound_download_is_verified_by_a_check_too() {
        // SHA-256 of the three letters "abc", from FIPS 180-2.
        const TAG: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let (endpoint, _) = serve(b"abc", Some(TAG));
        let home = tempfile::tempdir().unwrap();
        let hub = hub(&[("HF_HOME", home.path().to_str().unwrap()), ("HF_ENDPOINT", &endpoint)]);
        let card = Card::find("mnist").unwrap();
        fetch(&card, &hub, &mut |_| ()).unwrap();
        let report = check(&card, None, &hub).unwrap();
        assert!(report.files.iter().all(|f| f.checksum == Checksum::Match));
        assert!(report.problems.iter().all(|p| p.contains("footer")) && report.problems.len() == 3);
    }

    #[test]
    fn no_server_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        for endpoint in ["http://127.0.0.1:1", "not a url"] {
            let hub = hub(&[("HF_HOME", home.path().to_str().unwrap()), ("HF_ENDPOINT", endpoint)]);
            let error = fetch(&Card::find("mnist").unwrap(), &hub, &mut |_| ()).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT"), "{error}");
        }
    }
}
