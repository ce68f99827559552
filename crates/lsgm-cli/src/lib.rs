//! The command line of lsgm: configuration, registry, rendering and reports.
