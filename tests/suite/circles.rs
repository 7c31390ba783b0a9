//! Imports between files run one way: no file uses another one that uses it in turn.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};

use crate::support::{SourceFile, production_files};

/// The layers whose files form no circle.
const LAYERS: [&str; 10] = [
    "api",
    "cli",
    "controller",
    "convert",
    "local",
    "model",
    "plan",
    "simulator",
    "tailnet",
    "tailscale",
];

/// How many re-exports are followed to the file of a name.
const MAX_REEXPORTS: usize = 8;

type Path = Vec<String>;

#[test]
fn files_form_no_circle() {
    let modules = modules();
    let edges: BTreeMap<&Path, BTreeSet<&Path>> = modules
        .iter()
        .map(|(module, file)| (module, file.used(module, &modules)))
        .collect();
    let circles: Vec<String> = edges
        .keys()
        .filter(|module| {
            module
                .first()
                .is_some_and(|it| LAYERS.contains(&it.as_str()))
        })
        .filter_map(|module| circle(module, &edges))
        .map(|circle| circle.join(" -> "))
        .collect();
    assert!(
        circles.is_empty(),
        "move what both files use into a third one:\n{}",
        circles.join("\n")
    );
}

/// The shortest way from a module back to itself.
fn circle(start: &Path, edges: &BTreeMap<&Path, BTreeSet<&Path>>) -> Option<Vec<String>> {
    let mut from: BTreeMap<&Path, &Path> = BTreeMap::new();
    let mut front = vec![start];
    while !front.is_empty() {
        let mut next = Vec::new();
        for at in front {
            for to in edges[at].iter().copied() {
                if to == start {
                    let mut way = vec![start.join("::"), at.join("::")];
                    let mut at = at;
                    while let Some(before) = from.get(at) {
                        way.push(before.join("::"));
                        at = before;
                    }
                    way.reverse();
                    return Some(way);
                }
                if !from.contains_key(to) {
                    from.insert(to, at);
                    next.push(to);
                }
            }
        }
        front = next;
    }
    None
}

/// What a file defines, imports, and names.
struct Module {
    defined: BTreeSet<String>,
    /// Each imported name, and its path from the crate.
    imported: BTreeMap<String, Path>,
    /// The names that it passes on and does not use itself.
    passed_on: BTreeSet<String>,
    /// The paths in its code, as they are written.
    paths: Vec<Path>,
}

fn modules() -> BTreeMap<Path, Module> {
    let files = production_files();
    let names: BTreeSet<Path> = files.iter().map(|file| file.module.clone()).collect();
    files
        .into_iter()
        .map(|file| (file.module.clone(), Module::of(&file, &names)))
        .collect()
}

impl Module {
    fn of(file: &SourceFile, modules: &BTreeSet<Path>) -> Self {
        let mut found = Found::default();
        found.collect(&file.tokens.clone().into_iter().collect::<Vec<_>>());
        let mut imported = BTreeMap::new();
        let mut passed_on = BTreeSet::new();
        for (path, name, is_public) in found.uses {
            if let Some(path) = absolute(&path, &file.module, modules) {
                if is_public && !found.words.contains(&name) {
                    passed_on.insert(name.clone());
                }
                imported.insert(name, path);
            }
        }
        Self {
            defined: found.defined,
            imported,
            passed_on,
            paths: found.paths,
        }
    }

    /// The modules whose items this one uses.
    fn used<'m>(&self, own: &Path, modules: &'m BTreeMap<Path, Self>) -> BTreeSet<&'m Path> {
        let names: BTreeSet<Path> = modules.keys().cloned().collect();
        let imports = self
            .imported
            .iter()
            // An imported module counts where its items are named.
            .filter(|(name, path)| !self.passed_on.contains(*name) && !names.contains(*path))
            .map(|(_, path)| path.clone());
        let inline = self.paths.iter().filter_map(|path| {
            absolute(path, own, &names).or_else(|| {
                let module = self
                    .imported
                    .get(&path[0])
                    .filter(|it| names.contains(*it))?;
                Some([module.as_slice(), &path[1..]].concat())
            })
        });
        imports
            .chain(inline)
            .filter_map(|path| resolve(&path, modules, 0))
            .filter(|module| *module != own)
            .collect()
    }
}

/// A path from the crate; `None` for one of another crate, or of a name that is imported.
fn absolute(path: &[String], own: &Path, modules: &BTreeSet<Path>) -> Option<Path> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let child = || [own.as_slice(), &path[..1]].concat();
    Some(match path[0].as_str() {
        "crate" => path[1..].to_vec(),
        "self" => [own.as_slice(), &path[1..]].concat(),
        "super" => [&own[..own.len().checked_sub(supers)?], &path[supers..]].concat(),
        _ if modules.contains(&child()) => [own.as_slice(), path].concat(),
        _ => return None,
    })
}

/// The module that defines a name, through all re-exports.
fn resolve<'m>(
    path: &[String],
    modules: &'m BTreeMap<Path, Module>,
    depth: usize,
) -> Option<&'m Path> {
    let end = (0..=path.len())
        .rev()
        .find(|end| modules.contains_key(&path[..*end]))?;
    let (name, module) = modules.get_key_value(&path[..end])?;
    let item = path.get(end).filter(|item| !module.defined.contains(*item));
    let further = item.and_then(|item| module.imported.get(item));
    match further {
        Some(further) if depth < MAX_REEXPORTS => {
            let further = [further.as_slice(), &path[end + 1..]].concat();
            resolve(&further, modules, depth + 1)
        }
        _ => Some(name),
    }
}

#[derive(Default)]
struct Found {
    /// The path, the name that it is imported under, and whether others see that name.
    uses: Vec<(Path, String, bool)>,
    defined: BTreeSet<String>,
    paths: Vec<Path>,
    words: BTreeSet<String>,
}

impl Found {
    fn collect(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let word = match token {
                TokenTree::Group(group) => {
                    self.collect(&group.stream().into_iter().collect::<Vec<_>>());
                    at += 1;
                    continue;
                }
                TokenTree::Ident(ident) => ident.to_string(),
                _ => {
                    at += 1;
                    continue;
                }
            };
            match word.as_str() {
                // `use<…>` names what a type captures.
                "use" if tokens.get(at + 1).is_some_and(is_angle) => at += 1,
                "use" => {
                    let is_end = |token: &TokenTree| token.to_string() == ";";
                    let length = tokens[at..].iter().position(is_end).unwrap_or_default();
                    // `pub use`, or `pub(…) use`.
                    let is_public = tokens[at.saturating_sub(2)..at]
                        .iter()
                        .any(|token| token.to_string() == "pub");
                    self.tree(&tokens[at + 1..at + length], &[], is_public);
                    at += length;
                }
                // The scope of `pub(in crate::…)` uses nothing.
                "pub" if tokens.get(at + 1).is_some_and(is_scope) => at += 2,
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" => {
                    let name = tokens.get(at + 1).map(ToString::to_string);
                    self.defined.extend(name);
                    at += 1;
                }
                _ => at = self.path(tokens, at),
            }
        }
    }

    /// Takes a path or a single word, and returns where it ends.
    fn path(&mut self, tokens: &[TokenTree], start: usize) -> usize {
        let mut path = vec![tokens[start].to_string()];
        let mut at = start + 1;
        while let [first, second, TokenTree::Ident(next), ..] = &tokens[at..]
            && first.to_string() == ":"
            && second.to_string() == ":"
        {
            path.push(next.to_string());
            at += 3;
        }
        self.words.insert(path[0].clone());
        if path.len() > 1 {
            self.paths.push(path);
        }
        at
    }

    /// Takes a tree of imports: `a::{b, c::D as E}`.
    fn tree(&mut self, tokens: &[TokenTree], before: &[String], is_public: bool) {
        let mut path = before.to_vec();
        let mut name = None;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    for tree in inside.split(|token| token.to_string() == ",") {
                        if !tree.is_empty() {
                            self.tree(tree, &path, is_public);
                        }
                    }
                    return;
                }
                TokenTree::Ident(word) if *word == "as" => {
                    name = tokens.get(at + 1).map(ToString::to_string);
                    break;
                }
                TokenTree::Ident(word) if *word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                _ => {}
            }
        }
        let name = name.or_else(|| path.last().cloned());
        self.uses.extend(name.map(|name| (path, name, is_public)));
    }
}

fn is_angle(token: &TokenTree) -> bool {
    token.to_string() == "<"
}

fn is_scope(token: &TokenTree) -> bool {
    let inside = |stream: TokenStream| stream.into_iter().next().map(|it| it.to_string());
    match token {
        TokenTree::Group(group) => {
            matches!(
                inside(group.stream()).as_deref(),
                Some("in" | "super" | "crate")
            )
        }
        _ => false,
    }
}
