//! The CEL rules in a schema.

use std::{collections::HashMap, sync::Arc};

use cel::{Context, Env, Program, Value};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, ValidationRule,
};

use super::{Finding, cel as library};
use crate::cli::manifests::{fault::Code, path::FieldPath, tree::Node};

/// The rules that were met so far, compiled.
pub struct Rules {
    env: Arc<Env>,
    scope: Context<'static, 'static>,
    programs: HashMap<String, Result<Program, String>>,
}

impl Rules {
    pub fn new() -> Self {
        let env = Arc::new(library::language());
        Self {
            scope: library::scope(Arc::clone(&env)),
            env,
            programs: HashMap::new(),
        }
    }

    /// Checks the rules that stand at a value itself.
    pub fn check(
        &mut self,
        schema: &JSONSchemaProps,
        node: &Node,
        path: &FieldPath,
        findings: &mut Vec<Finding>,
    ) {
        let Some(rules) = &schema.x_kubernetes_validations else {
            return;
        };
        let value = library::value(schema, node);
        for rule in rules {
            let message = match self.evaluate(&rule.rule, &value) {
                Ok(Some(Value::Bool(true)) | None) => continue,
                Ok(Some(_)) => self.message(rule, &value),
                Err(error) => format!("the rule '{}' cannot be evaluated: {error}", rule.rule),
            };
            let below = FieldPath::parse(rule.field_path.as_deref().unwrap_or_default());
            findings.push(Finding {
                code: Code::Rule,
                field: path.join(&below),
                key: false,
                message,
            });
        }
    }

    /// What an expression gives for a value; `None` where it compares with an older one, as there is
    /// none.
    fn evaluate(&mut self, expression: &str, value: &Value) -> Result<Option<Value>, String> {
        if !self.programs.contains_key(expression) {
            let program = self
                .env
                .compile(expression)
                .map_err(|error| error.to_string());
            self.programs.insert(expression.to_owned(), program);
        }
        let program = match self.programs.get(expression) {
            Some(Ok(program)) => program,
            Some(Err(error)) => return Err(error.clone()),
            None => return Ok(None),
        };
        if program.references().has_variable("oldSelf") {
            return Ok(None);
        }
        let mut scope = self.scope.new_inner_scope();
        scope.add_variable_from_value("self", value.clone());
        let given = program.execute(&scope).map_err(|error| error.to_string())?;
        Ok(Some(given))
    }

    /// The message that names the value, else the fixed one, as the API server chooses.
    fn message(&mut self, rule: &ValidationRule, value: &Value) -> String {
        if let Some(expression) = &rule.message_expression
            && let Ok(Some(Value::String(message))) = self.evaluate(expression, value)
            && !message.trim().is_empty()
            && !message.contains('\n')
        {
            return message.to_string();
        }
        let fixed = rule.message.clone();
        fixed.unwrap_or_else(|| format!("failed rule: {}", rule.rule))
    }
}
