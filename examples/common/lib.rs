//! What the examples share. The library itself needs none of this: someone who embeds a kernel
//! compiles neither a tokenizer nor a plotter.

pub mod baseline;
mod canvas;
pub mod chat_template;
pub mod files;
pub mod hf_tokenizer;
pub mod measure;
pub mod memory;
pub mod metrics;
pub mod model_folder;
pub mod parity;
mod parquet;
pub mod plot;
pub mod policy;
pub mod policy_report;
pub mod progress;
pub mod prompts;
mod python_json;
pub mod record_file;
pub mod report;
pub mod rewards;
pub mod samples;
pub mod scoring;
pub mod statistics;
pub mod table;
mod tokenizer_config;
pub mod training;
pub mod tuning;
