//! Data sources for lsgm: built-in sets, idx, parquet and the Hugging Face cache.
