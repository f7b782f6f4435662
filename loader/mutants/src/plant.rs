//! Plants mutants into a source file: every place where one is possible asks at run time whether it is the one.
//!
//! `a + b` becomes `if crate::mutant(7) { a - b } else { a + b }`. What the compiler evaluates cannot ask: constants get
//! mutated copies beside them, and who uses a constant at run time chooses among the copies. Constants of traits, types,
//! patterns and the functions that constants call stay as they are.

use std::collections::{HashMap, HashSet};

use proc_macro2::Span;
use quote::{ToTokens, format_ident};
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::visit_mut::{self, VisitMut};
use syn::{BinOp, Expr, Ident, Lit, Pat, Stmt, Type, UnOp, parse_quote};

/// A planted mistake.
pub struct Mutant {
    pub file: String,
    pub line: usize,
    pub what: String,
}

/// Unit variants of the enums that the files of one architecture define, in order.
pub type Variants = HashMap<String, Vec<String>>;

/// Collects [`Variants`], and the functions that constants call.
#[derive(Default)]
pub struct Survey {
    pub variants: Variants,
    pub constant_calls: HashSet<String>,
    in_constant: bool,
}

impl<'ast> Visit<'ast> for Survey {
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        let units = item.variants.iter().filter(|variant| variant.fields.is_empty());
        self.variants
            .insert(item.ident.to_string(), units.map(|variant| variant.ident.to_string()).collect());
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(|survey| survey.visit_expr(&item.expr));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(|survey| survey.visit_expr(&item.expr));
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if let (true, Some(last)) = (self.in_constant, path.path.segments.last()) {
            self.constant_calls.insert(last.ident.to_string());
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if self.in_constant {
            self.constant_calls.insert(call.method.to_string());
        }
        syn::visit::visit_expr_method_call(self, call);
    }
}

impl Survey {
    fn constant(&mut self, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.in_constant, true);
        visit(self);
        self.in_constant = before;
    }
}

/// Plants mutants into one file after the other.
pub struct Planter<'s> {
    pub survey: &'s Survey,
    pub file: String,
    pub mutants: Vec<Mutant>,
    /// The constants in scope that have mutated copies, with the numbers of these, innermost scope last.
    scopes: Vec<HashMap<String, Vec<u32>>>,
    function: String,
}

impl<'s> Planter<'s> {
    pub fn new(survey: &'s Survey, file: &str, mutants: Vec<Mutant>) -> Self {
        Planter { survey, file: file.to_owned(), mutants, scopes: Vec::new(), function: String::new() }
    }

    pub fn plant(&mut self, file: &mut syn::File) {
        let constants = self.copies(file.items.iter_mut());
        file.items.extend(constants);
        for item in &mut file.items {
            self.visit_item_mut(item);
        }
        self.scopes.pop();
    }

    fn add(&mut self, span: Span, what: String) -> u32 {
        let what = if self.function.is_empty() { what } else { format!("{what} in {}", self.function) };
        self.mutants.push(Mutant { file: self.file.clone(), line: span.start().line, what });
        self.mutants.len() as u32 - 1
    }

    /// Opens a scope and returns mutated copies of the constants in it.
    fn copies<'i>(&mut self, items: impl Iterator<Item = &'i mut syn::Item>) -> Vec<syn::Item> {
        let mut copies = Vec::new();
        let mut scope = HashMap::new();
        for item in items {
            let syn::Item::Const(item) = item else { continue };
            let mut numbers = Vec::new();
            for place in 0.. {
                let mut change = ChangeOne { variants: &self.survey.variants, left: place, changed: None };
                let mut copy = item.clone();
                change.visit_expr_mut(&mut copy.expr);
                let Some((span, what)) = change.changed else { break };
                let number = self.add(span, format!("{what} in {}", item.ident));
                copy.ident = format_ident!("{}__{}", item.ident, number);
                copies.push(syn::Item::Const(copy));
                numbers.push(number);
            }
            scope.insert(item.ident.to_string(), numbers);
        }
        self.scopes.push(scope);
        copies
    }

    fn either(&mut self, span: Span, what: String, mutated: Expr, original: &Expr) -> Expr {
        let number = self.add(span, what);
        parse_quote!((if crate::mutant(#number) { #mutated } else { #original }))
    }

    /// Mutants that return at once.
    fn early_returns(&mut self, signature: &syn::Signature, block: &mut syn::Block) {
        let syn::ReturnType::Type(_, returned) = &signature.output else { return };
        for value in values_of(returned) {
            let number = self.add(signature.ident.span(), format!("return {}", shown(&value)));
            block.stmts.insert(0, parse_quote!(if crate::mutant(#number) { return #value; }));
        }
    }

    fn function(&mut self, signature: &mut syn::Signature, block: &mut syn::Block) {
        if signature.constness.is_some() && self.survey.constant_calls.contains(&signature.ident.to_string())
        {
            return;
        }
        signature.constness = None;
        let before = std::mem::replace(&mut self.function, signature.ident.to_string());
        self.visit_block_mut(block);
        self.function.clear();
        self.early_returns(signature, block);
        self.function = before;
    }
}

/// What a function of this type may return instead.
fn values_of(returned: &Type) -> Vec<Expr> {
    let text = shown(returned);
    match text.as_str() {
        "bool" => vec![parse_quote!(true), parse_quote!(false)],
        "u8" | "u16" | "u32" | "u64" | "i64" => vec![parse_quote!(0), parse_quote!(1)],
        "Result<(),FixupProblem>" => vec![parse_quote!(Ok(()))],
        "Result<i64,FixupProblem>" | "Result<u32,FixupProblem>" | "Result<u64,FixupProblem>" => {
            vec![parse_quote!(Ok(0)), parse_quote!(Ok(1))]
        }
        _ if text.starts_with("Option<") => vec![parse_quote!(None)],
        _ => Vec::new(),
    }
}

pub fn shown(tokens: &impl ToTokens) -> String {
    let text: String = tokens.to_token_stream().to_string();
    let text = text.split_whitespace().collect::<Vec<_>>().join("");
    if text.chars().count() > 60 { text.chars().take(57).collect::<String>() + "..." } else { text }
}

/// The other operators that might have been written.
fn instead_of(operator: &BinOp) -> Vec<BinOp> {
    match operator {
        BinOp::Add(_) => vec![parse_quote!(-)],
        BinOp::Sub(_) => vec![parse_quote!(+)],
        BinOp::Mul(_) => vec![parse_quote!(/), parse_quote!(+)],
        BinOp::Div(_) | BinOp::Rem(_) => vec![parse_quote!(*)],
        BinOp::Shl(_) => vec![parse_quote!(>>)],
        BinOp::Shr(_) => vec![parse_quote!(<<)],
        BinOp::BitAnd(_) => vec![parse_quote!(|), parse_quote!(^)],
        BinOp::BitOr(_) => vec![parse_quote!(&)],
        BinOp::BitXor(_) => vec![parse_quote!(|)],
        BinOp::And(_) => vec![parse_quote!(||)],
        BinOp::Or(_) => vec![parse_quote!(&&)],
        BinOp::Eq(_) => vec![parse_quote!(!=)],
        BinOp::Ne(_) => vec![parse_quote!(==)],
        BinOp::Lt(_) => vec![parse_quote!(<=), parse_quote!(>=)],
        BinOp::Le(_) => vec![parse_quote!(<), parse_quote!(>)],
        BinOp::Gt(_) => vec![parse_quote!(>=), parse_quote!(<=)],
        BinOp::Ge(_) => vec![parse_quote!(>), parse_quote!(<)],
        BinOp::AddAssign(_) => vec![parse_quote!(-=)],
        BinOp::SubAssign(_) => vec![parse_quote!(+=)],
        BinOp::BitOrAssign(_) => vec![parse_quote!(&=)],
        BinOp::BitAndAssign(_) => vec![parse_quote!(|=)],
        BinOp::ShlAssign(_) => vec![parse_quote!(>>=)],
        BinOp::ShrAssign(_) => vec![parse_quote!(<<=)],
        _ => Vec::new(),
    }
}

/// A number one more, if it is a number, and one less if that is more telling.
fn other_number(literal: &Lit, variant: usize) -> Option<Lit> {
    let Lit::Int(number) = literal else { return None };
    let value: u128 = number.base10_parse().ok()?;
    let value = if variant == 0 || value == 0 { value + 1 } else { value - 1 };
    Some(Lit::Int(syn::LitInt::new(&format!("{value}{}", number.suffix()), number.span())))
}

/// The next unit variant of the same enum.
fn other_variant(variants: &Variants, path: &syn::Path) -> Option<syn::Path> {
    let [kind, variant] = path.segments.iter().collect::<Vec<_>>()[..] else { return None };
    let all = variants.get(&kind.ident.to_string())?;
    let position = all.iter().position(|name| variant.ident == name.as_str())?;
    let other = &all[(position + 1) % all.len()];
    let (kind, other) = (&kind.ident, Ident::new(other, variant.ident.span()));
    (other != variant.ident).then(|| parse_quote!(#kind::#other))
}

/// Changes the number or variant that is `left` places further on in a constant.
struct ChangeOne<'v> {
    variants: &'v Variants,
    left: usize,
    changed: Option<(Span, String)>,
}

impl VisitMut for ChangeOne<'_> {
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        let other: Option<Expr> = match expr {
            Expr::Lit(literal) => other_number(&literal.lit, 0).map(|lit| parse_quote!(#lit)),
            Expr::Path(path) => other_variant(self.variants, &path.path).map(|path| parse_quote!(#path)),
            Expr::Repeat(repeat) => return self.visit_expr_mut(&mut repeat.expr),
            _ => None,
        };
        match other {
            Some(_) if self.changed.is_some() => {}
            Some(_) if self.left > 0 => self.left -= 1,
            Some(other) => {
                self.changed = Some((expr.span(), format!("{} for {}", shown(&other), shown(expr))));
                *expr = other;
            }
            None => visit_mut::visit_expr_mut(self, expr),
        }
    }

    fn visit_type_mut(&mut self, _: &mut Type) {}
    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}
}

/// Whether a condition has a `let` in it.
fn has_let(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(both) => has_let(&both.left) || has_let(&both.right),
        _ => false,
    }
}

fn negated(number: u32, condition: &Expr) -> Expr {
    parse_quote!(crate::mutant(#number) ^ (#condition))
}

impl VisitMut for Planter<'_> {
    // What the compiler evaluates, and what decides on types.
    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}
    fn visit_item_trait_mut(&mut self, item: &mut syn::ItemTrait) {
        for item in &mut item.items {
            if let syn::TraitItem::Fn(item) = item
                && let Some(block) = &mut item.default
            {
                self.function(&mut item.sig, block);
            }
        }
    }
    fn visit_type_mut(&mut self, _: &mut Type) {}
    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}
    fn visit_generics_mut(&mut self, _: &mut syn::Generics) {}
    fn visit_pat_mut(&mut self, _: &mut Pat) {}
    fn visit_attribute_mut(&mut self, _: &mut syn::Attribute) {}
    fn visit_item_enum_mut(&mut self, _: &mut syn::ItemEnum) {}
    fn visit_item_mod_mut(&mut self, _: &mut syn::ItemMod) {}

    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        self.function(&mut item.sig, &mut item.block);
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        self.function(&mut item.sig, &mut item.block);
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        let items = block.stmts.iter_mut().filter_map(|stmt| match stmt {
            Stmt::Item(item) => Some(item),
            _ => None,
        });
        let copies = self.copies(items);
        visit_mut::visit_block_mut(self, block);
        block.stmts.splice(0..0, copies.into_iter().map(Stmt::Item));
        self.scopes.pop();
    }

    fn visit_expr_match_mut(&mut self, expr: &mut syn::ExprMatch) {
        let wild = expr.arms.last().is_some_and(|arm| matches!(arm.pat, Pat::Wild(_)) && arm.guard.is_none());
        let last = expr.arms.len() - 1;
        visit_mut::visit_expr_match_mut(self, expr);
        for (number, arm) in expr.arms.iter_mut().enumerate() {
            let span = arm.pat.span();
            if let Some((_, guard)) = &mut arm.guard
                && !has_let(guard)
            {
                let number = self.add(span, "negated guard".to_owned());
                **guard = negated(number, guard);
            }
            if wild && number < last {
                let mutant = self.add(span, format!("no arm for {}", shown(&arm.pat)));
                let guard: Expr = match arm.guard.take() {
                    Some((_, guard)) => parse_quote!(!crate::mutant(#mutant) && (#guard)),
                    None => parse_quote!(!crate::mutant(#mutant)),
                };
                arm.guard = Some((Default::default(), Box::new(guard)));
            }
        }
    }

    fn visit_expr_if_mut(&mut self, expr: &mut syn::ExprIf) {
        let condition = (!has_let(&expr.cond)).then(|| (expr.cond.span(), shown(&expr.cond)));
        visit_mut::visit_expr_if_mut(self, expr);
        if let Some((span, text)) = condition {
            let number = self.add(span, format!("negated `{text}`"));
            *expr.cond = negated(number, &expr.cond);
        }
    }

    fn visit_expr_repeat_mut(&mut self, expr: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut expr.expr);
    }

    fn visit_expr_let_mut(&mut self, expr: &mut syn::ExprLet) {
        self.visit_expr_mut(&mut expr.expr);
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        let original = expr.clone();
        let span = original.span();
        visit_mut::visit_expr_mut(self, expr);
        match &original {
            Expr::Binary(binary) => {
                // A chain with `let` is no expression.
                if has_let(&original) {
                    return;
                }
                for operator in instead_of(&binary.op) {
                    let mut mutated = binary.clone();
                    let what =
                        format!("{} for {} in `{}`", shown(&operator), shown(&binary.op), shown(binary));
                    mutated.op = operator;
                    *expr = self.either(binary.op.span(), what, Expr::Binary(mutated), expr);
                }
            }
            Expr::Unary(unary) if !matches!(unary.op, UnOp::Deref(_)) => {
                let what = format!("no {} in `{}`", shown(&unary.op), shown(unary));
                *expr = self.either(span, what, (*unary.expr).clone(), expr);
            }
            Expr::Lit(literal) => {
                for variant in 0..2 {
                    if let Some(other) = other_number(&literal.lit, variant)
                        && (variant == 0 || shown(literal) != "0")
                    {
                        let what = format!("{} for {}", shown(&other), shown(literal));
                        *expr = self.either(span, what, parse_quote!(#other), expr);
                    }
                }
            }
            Expr::Path(path) => {
                if let Some(other) = other_variant(&self.survey.variants, &path.path) {
                    let what = format!("{} for {}", shown(&other), shown(path));
                    *expr = self.either(span, what, parse_quote!(#other), expr);
                } else if let Some(name) = path.path.get_ident() {
                    let text = name.to_string();
                    let numbers = self.scopes.iter().rev().find_map(|scope| scope.get(&text)).cloned();
                    if let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) {
                        let copies = numbers.iter().map(|number| format_ident!("{name}__{number}"));
                        *expr =
                            parse_quote!((*(#(if crate::mutant(#numbers) { &#copies } else)* { &#name })));
                    }
                }
            }
            Expr::MethodCall(call) => {
                let other = match call.method.to_string().as_str() {
                    "wrapping_add" => "wrapping_sub",
                    "wrapping_sub" => "wrapping_add",
                    "checked_add" => "checked_sub",
                    "checked_sub" => "checked_add",
                    "is_some" => "is_none",
                    "is_none" => "is_some",
                    _ => return,
                };
                let what = format!("{other} for {}", call.method);
                let mut mutated = call.clone();
                mutated.method = Ident::new(other, call.method.span());
                *expr = self.either(call.method.span(), what, Expr::MethodCall(mutated), expr);
            }
            Expr::Try(tried) => {
                if let Expr::Call(call) = &*tried.expr
                    && matches!(shown(&call.func).as_str(), "signed" | "unsigned" | "either" | "aligned")
                {
                    let what = format!("no check by {}", shown(call));
                    *expr = self.either(span, what, call.args[0].clone(), expr);
                }
            }
            Expr::Macro(call) if call.mac.path.is_ident("matches") => {
                let number = self.add(span, format!("negated {}", shown(call)));
                *expr = parse_quote!((crate::mutant(#number) ^ #call));
            }
            _ => {}
        }
    }
}
