//! The production code of the crate as tokens: without comments, and without what only tests compile.

use std::{fs, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file of the crate.
pub struct SourceFile {
    /// Its path from the root of the repository.
    pub path: String,
    /// The path of its module, without the crate.
    pub module: Vec<String>,
    /// Its tokens.
    pub tokens: TokenStream,
}

/// All files that the library consists of, in the order of their modules.
pub fn production_files() -> Vec<SourceFile> {
    let mut files = Vec::new();
    add(Path::new("src/lib.rs"), &[], &mut files);
    files
}

fn add(path: &Path, module: &[String], files: &mut Vec<SourceFile>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join(path)).unwrap();
    let tokens: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tokens = production(tokens);
    let folder = match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "mod") => path.parent().unwrap().to_owned(),
        _ => path.with_extension(""),
    };
    let children = children(tokens.clone());
    files.push(SourceFile {
        path: path.display().to_string(),
        module: module.to_vec(),
        tokens,
    });
    for child in children {
        let flat = folder.join(format!("{child}.rs"));
        let file = if root.join(&flat).is_file() {
            flat
        } else {
            folder.join(&child).join("mod.rs")
        };
        add(&file, &[module, &[child]].concat(), files);
    }
}

/// The modules that a file declares: `mod NAME;`.
fn children(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens
        .windows(3)
        .filter(|window| window[0].to_string() == "mod" && window[2].to_string() == ";")
        .map(|window| window[1].to_string())
        .collect()
}

/// Without documentation, and without the items that have `#[cfg(test)]`.
fn production(tokens: TokenStream) -> TokenStream {
    let mut kept = TokenStream::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_hash = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#');
        // `#![…]` is about the module itself.
        tokens.next_if(|next| is_hash && next.to_string() == "!");
        match (token, tokens.peek()) {
            (hash, Some(TokenTree::Group(group)))
                if is_hash && group.delimiter() == Delimiter::Bracket =>
            {
                let attribute = group.stream().to_string();
                if attribute.starts_with("doc ") {
                    tokens.next();
                } else if attribute.replace(' ', "") == "cfg(test)" {
                    skip_item(&mut tokens);
                } else {
                    kept.extend([hash]);
                }
            }
            (TokenTree::Group(group), _) => {
                let inside = production(group.stream());
                let group = proc_macro2::Group::new(group.delimiter(), inside);
                kept.extend([TokenTree::Group(group)]);
            }
            (token, _) => kept.extend([token]),
        }
    }
    kept
}

/// An item ends with a semicolon or its braces.
fn skip_item(tokens: &mut impl Iterator<Item = TokenTree>) {
    tokens.find(|token| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    });
}
