mod files;
mod properties;
mod shared;
