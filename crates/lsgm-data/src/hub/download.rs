use std::path::PathBuf;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use super::{Hub, Progress, refused};
use crate::Result;
use crate::shield::shield;

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
            Some(downloaded) => downloaded.map_err(failed),
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

fn advice(error: &ApiError) -> String {
    let reason = error.to_string();
    let hint = if reason.contains("401") || reason.contains("403") {
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
