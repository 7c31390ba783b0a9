//! Argo CD's health check, run as Argo CD runs it.

use std::{collections::BTreeMap, path::PathBuf};

use mlua::{Lua, LuaOptions, StdLib, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: String,
    pub message: String,
}

/// The file that Argo CD's own test runner reads beside a health.lua.
#[derive(Debug, Serialize)]
pub struct HealthTests {
    pub tests: Vec<HealthTest>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthTest {
    pub health_status: Health,
    pub input_path: String,
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/gitops/argocd/resource_customizations/tailnet.dev/_")
}

pub fn script() -> String {
    std::fs::read_to_string(folder().join("health.lua")).unwrap()
}

/// The recorded manifests by their path from [`folder`].
pub fn recorded() -> BTreeMap<String, Value> {
    let entries = std::fs::read_dir(folder().join("testdata")).unwrap();
    let read = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let path = format!("testdata/{}", entry.file_name().to_str().unwrap());
        (path, serde_yaml::from_str(&text).unwrap())
    };
    entries.map(|entry| read(entry.unwrap())).collect()
}

/// The health that the script returns for an object.
///
/// Argo CD (util/lua/lua.go) gives a script of argocd-cm the base, package and table libraries and a
/// part of `os`; what it runs in its own tests has all of them, so that a use of `string` shows only
/// in production. Here there are base and table.
pub fn health(object: &Value) -> Health {
    let lua = Lua::new_with(StdLib::TABLE, LuaOptions::default()).unwrap();
    lua.globals().set("obj", to_lua(&lua, object)).unwrap();
    let health: Table = lua
        .load(script())
        .set_name("health.lua")
        .eval()
        .unwrap_or_else(|error| panic!("{error}"));
    Health {
        status: health.get("status").unwrap(),
        message: health.get("message").unwrap(),
    }
}

/// Converts as Argo CD does: numbers are floats, null is nil.
fn to_lua(lua: &Lua, value: &Value) -> mlua::Value {
    match value {
        Value::Null => mlua::Value::Nil,
        Value::Bool(value) => mlua::Value::Boolean(*value),
        Value::Number(number) => mlua::Value::Number(number.as_f64().unwrap()),
        Value::String(text) => mlua::Value::String(lua.create_string(text).unwrap()),
        Value::Array(items) => {
            let items = items.iter().map(|item| to_lua(lua, item));
            mlua::Value::Table(lua.create_sequence_from(items).unwrap())
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| (key.as_str(), to_lua(lua, value)));
            mlua::Value::Table(lua.create_table_from(fields).unwrap())
        }
    }
}
