//! The attribute `#[task]`, which turns a function into a task of a Broccoli module.
//!
//! It generates the export, and the description in the section `broccoli.tasks`. It knows no types: the traits of
//! `broccoli-sdk` define the name of each parameter and result type on the wire. `broccoli-sdk` re-exports this
//! attribute; use it from there.
#![forbid(unsafe_code)]

use broccoli_abi::{ARGS_MAX, DOC_LEN_MAX, is_name};
use proc_macro::TokenStream;
use proc_macro2::{Group, Ident, Span, TokenStream as TokenStream2, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, FnArg, ItemFn, Lit, LitStr, Meta, Pat, ReturnType, Type};

/// Makes a function a task. The function itself does not change, and can be called and tested.
///
/// Its parameters must implement the SDK's `FromCbor`, its result `ToCbor`. A `Result` makes a task that can fail.
/// Users of the cluster see the first paragraph of its documentation. `#[task(name = "other")]` deploys it under
/// another name.
///
/// ```
/// use broccoli_sdk::task;
///
/// /// Adds two integers.
/// #[task]
/// fn add(x: i64, y: i64) -> i64 {
///     x + y
/// }
///
/// assert_eq!(add(4, 4), 8);
/// ```
///
/// Only plain functions compile. These do not:
///
/// ```compile_fail
/// #[broccoli_sdk::task]
/// async fn add(x: i64, y: i64) -> i64 {
///     x + y
/// }
/// ```
///
/// ```compile_fail
/// #[broccoli_sdk::task]
/// fn same<T>(x: T) -> T {
///     x
/// }
/// ```
///
/// ```compile_fail
/// #[broccoli_sdk::task(alias = "plus")]
/// fn add(x: i64, y: i64) -> i64 {
///     x + y
/// }
/// ```
#[proc_macro_attribute]
pub fn task(attr: TokenStream, item: TokenStream) -> TokenStream {
    let function = match syn::parse::<ItemFn>(item.clone()) {
        Ok(function) => function,
        // What it stands on is there all the same, so that nothing else misses it.
        Err(_) if syn::parse::<syn::Item>(item.clone()).is_ok() => {
            let item = TokenStream2::from(item);
            let error = Error::new(Span::call_site(), "#[task] stands on a function: fn name(x: i64) -> i64 { … }");
            let error = error.to_compile_error();
            return quote!(#item #error).into();
        }
        Err(error) => return error.to_compile_error().into(),
    };
    let expanded = parse_name(attr.into()).and_then(|name| expand(name, &function));
    expanded
        .unwrap_or_else(|error| {
            let error = error.to_compile_error();
            quote!(#function #error)
        })
        .into()
}

/// Reads `name = "…"`, if present.
fn parse_name(attr: TokenStream2) -> Result<Option<LitStr>, Error> {
    if attr.is_empty() {
        return Ok(None);
    }
    let span = attr.span();
    let usage = || Error::new(span, "expected #[task] or #[task(name = \"…\")]");
    let meta = syn::parse2::<Meta>(attr).map_err(|_| usage())?;
    match meta.require_name_value().map(|pair| (pair.path.is_ident("name"), &pair.value)) {
        Ok((true, Expr::Lit(ExprLit { lit: Lit::Str(name), .. }))) => Ok(Some(name.clone())),
        _ => Err(usage()),
    }
}

fn expand(name: Option<LitStr>, function: &ItemFn) -> Result<TokenStream2, Error> {
    check_signature(function)?;
    let ident = &function.sig.ident;
    let name = name.unwrap_or_else(|| LitStr::new(&ident.to_string(), ident.span()));
    if !is_name(&name.value()) {
        return Err(Error::new(name.span(), "a task name has letters, digits and _, at most 64"));
    }
    let params = params(function)?;
    let export = format!("{}{}", broccoli_abi::EXPORT_TASK_PREFIX, name.value());
    let section = broccoli_abi::SECTION_TASKS;
    let doc = doc(function);
    let (names, types): (Vec<_>, Vec<_>) = params.iter().cloned().unzip();
    let count = params.len();
    let values: Vec<Ident> = (0..count).map(|i| format_ident!("arg{i}")).collect();
    let (ret, ret_span) = match &function.sig.output {
        ReturnType::Default => (quote!(()), ident.span()),
        ReturnType::Type(_, ty) => (elide(ty.to_token_stream()), ty.span()),
    };
    // The compiler tells each error once for each place: these are the places of the types.
    let decoded = types.iter().map(|ty| {
        let elided = elide(ty.to_token_stream());
        quote_spanned!(ty.span()=> <#elided as ::broccoli_sdk::FromCbor<'_>>::decode)
    });
    let described = quote_spanned!(ret_span=> <#ret as ::broccoli_sdk::Return>::TYPE);
    let arg_types = types.iter().map(|ty| {
        let elided = elide(ty.to_token_stream());
        quote_spanned!(ty.span()=> <#elided as ::broccoli_sdk::FromCbor<'_>>::TYPE)
    });
    Ok(quote! {
        #function

        #[allow(unsafe_code)]
        const _: () = {
            const DESCRIPTION: ::broccoli_sdk::rt::Description =
                ::broccoli_sdk::rt::Description::new(#name, #count)
                    #(.arg(#names, &#arg_types))*
                    .end(&#described, #doc);

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = #section)]
            static SECTION: [u8; DESCRIPTION.len()] = DESCRIPTION.bytes();

            // SAFETY: the prefix `task_` keeps the name apart from every other symbol.
            #[cfg(target_arch = "wasm32")]
            #[unsafe(export_name = #export)]
            extern "C" fn export(ptr: *const u8, len: usize) -> i64 {
                // SAFETY: the host wrote the arguments there, and checked them.
                let mut args = unsafe { ::broccoli_sdk::rt::args(ptr, len) };
                #(let #values = #decoded(&mut args);)*
                ::broccoli_sdk::rt::finish(#ident(#(#values),*))
            }
        };
    })
}

/// The type without the lifetimes of the function, which do not exist outside it.
fn elide(ty: TokenStream2) -> TokenStream2 {
    let mut after_tick = false;
    ty.into_iter()
        .map(|token| {
            let was_after_tick = core::mem::replace(&mut after_tick, false);
            match token {
                TokenTree::Punct(punct) => {
                    after_tick = punct.as_char() == '\'';
                    TokenTree::Punct(punct)
                }
                TokenTree::Ident(ident) if was_after_tick && ident != "static" => {
                    TokenTree::Ident(Ident::new("_", ident.span()))
                }
                TokenTree::Group(group) => {
                    let inner = elide(group.stream());
                    TokenTree::Group(Group::new(group.delimiter(), inner))
                }
                other => other,
            }
        })
        .collect()
}

const NO_GENERICS: &str = "a task is not generic: callers send values, so name the type, such as i64, f64 or Value";

fn check_signature(function: &ItemFn) -> Result<(), Error> {
    let sig = &function.sig;
    let refuse = |span: Span, what: &str| Err(Error::new(span, what));
    if let Some(token) = &sig.asyncness {
        return refuse(
            token.span(),
            "a task is not async: it runs to its end, waits with sleep_ms(…), and hands work on with submit(…)",
        );
    }
    if let Some(token) = &sig.unsafety {
        return refuse(token.span(), "a task is a safe function: put what is unsafe into a block inside");
    }
    if sig.generics.type_params().next().is_some() || sig.generics.const_params().next().is_some() {
        return refuse(sig.generics.span(), NO_GENERICS);
    }
    let types = sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(param) => Some(&*param.ty),
        FnArg::Receiver(_) => None,
    });
    let result = match &sig.output {
        ReturnType::Type(_, ty) => Some(&**ty),
        ReturnType::Default => None,
    };
    for ty in types.chain(result) {
        match ty {
            Type::ImplTrait(_) => return refuse(ty.span(), NO_GENERICS),
            Type::Reference(reference) if reference.mutability.is_some() => {
                return refuse(
                    ty.span(),
                    "a task changes no argument of its caller: take the value and return the new one",
                );
            }
            _ => {}
        }
    }
    if sig.inputs.len() > ARGS_MAX {
        return refuse(sig.inputs.span(), "a task takes at most 16 arguments: put several into a Vec or a tuple");
    }
    Ok(())
}

/// The names and types of the parameters.
fn params(function: &ItemFn) -> Result<Vec<(String, Type)>, Error> {
    function
        .sig
        .inputs
        .iter()
        .map(|input| match input {
            FnArg::Receiver(receiver) => Err(Error::new(receiver.span(), "a task has no self: write it outside of the impl")),
            FnArg::Typed(param) => match &*param.pat {
                Pat::Ident(pat) if is_name(&pat.ident.to_string()) => Ok((pat.ident.to_string(), (*param.ty).clone())),
                other => Err(Error::new(other.span(), "an argument of a task needs a plain name, by which it can be given: take it apart inside the function")),
            },
        })
        .collect()
}

/// The first paragraph of the documentation, on one line, within the limit.
fn doc(function: &ItemFn) -> String {
    let lines = function.attrs.iter().filter_map(|attr| match &attr.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => Some(line.value()),
            _ => None,
        },
        _ => None,
    });
    let paragraph: Vec<String> = lines
        .map(|line| line.trim().to_string())
        .skip_while(String::is_empty)
        .take_while(|line| !line.is_empty())
        .collect();
    let mut text = paragraph.join(" ");
    text.truncate(text.floor_char_boundary(DOC_LEN_MAX));
    text
}
