use std::path::PathBuf;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use super::{Hub, Progress, refused};
use crate::digest::{blob_digest, digest};
use crate::shield::shield;
use crate::{DataError, Result};

impl Hub {
    pub(super) fn download(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf> {
        let failed = |e: ApiError| refused(repo, file, advice(&e));
        let files = Repo::with_revision(repo.to_owned(), RepoType::Dataset, revision.to_owned());
        let meter = Meter { file, done: 0, total: 0, report: progress };
        let api = self.api().map_err(failed)?;
        // The client asserts where a server or a file system behaves oddly.
        match shield(|| api.repo(files).download_with_progress(file, meter)) {
            Some(downloaded) => verified(downloaded.map_err(failed)?, repo, file),
            None => Err(refused(repo, file, "the server's answer makes no sense; check `HF_ENDPOINT`".into())),
        }
    }

    fn api(&self) -> Result<Api, ApiError> {
        let cache = Cache::new(self.cache.clone());
        let builder = ApiBuilder::from_cache(cache).with_progress(false).with_retries(2).with_token(self.token.clone());
        match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.clone()).build(),
            None => builder.build(),
        }
    }
}

/// Refuse a file whose content is not what its name in the cache says.
fn verified(path: PathBuf, repo: &str, file: &str) -> Result<PathBuf> {
    match blob_digest(&path) {
        Some(expected) if !expected.eq_ignore_ascii_case(&digest(&path)?.1) => {
            // The link first: what it points to can only be found through it.
            let blob = std::fs::canonicalize(&path).map_err(|e| DataError::io(&path, e))?;
            for damaged in [&path, &blob] {
                std::fs::remove_file(damaged).map_err(|e| DataError::io(damaged, e))?;
            }
            Err(refused(repo, file, "its checksum is wrong: the transfer was damaged; try again".into()))
        }
        _ => Ok(path),
    }
}

fn advice(error: &ApiError) -> String {
    let reason = error.to_string();
    let hint = if matches!(error, ApiError::IoError(_) | ApiError::LockAcquisition(_)) {
        "see that the cache folder can be written and that no other download of the file is running"
    } else if reason.contains("401") || reason.contains("403") {
        "the hub asks for permission: set `HF_TOKEN`, and accept the terms of the data set on its page"
    } else if reason.contains("404") {
        "the hub has no such file: the card may be out of date"
    } else {
        "check the network and `HF_ENDPOINT`, or pass `--data DIR` with the files in it"
    };
    format!("{reason}; {hint}")
}

struct Meter<'a> {
    file: &'a str,
    done: usize,
    total: usize,
    report: &'a mut dyn FnMut(Progress<'_>),
}

impl Meter<'_> {
    fn report(&mut self) {
        (self.report)(Progress { file: self.file, done: self.done, total: self.total });
    }
}

impl hf_hub::api::Progress for Meter<'_> {
    fn init(&mut self, size: usize, _: &str) {
        self.total = size;
        self.report();
    }

    fn update(&mut self, size: usize) {
        self.done += size;
        self.report();
    }

    fn finish(&mut self) {
        self.report();
    }
}
