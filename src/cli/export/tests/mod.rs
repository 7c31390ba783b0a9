mod files;
mod properties;
