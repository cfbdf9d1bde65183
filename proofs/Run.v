(* The theorems of Context.v for a sort that runs, and the model as an OCaml program. *)

From Coq Require Import List NArith Orders Mergesort Sorted Permutation.
From Coq Require Import Extraction ExtrOcamlBasic ExtrOcamlNatInt ExtrOcamlZInt.
From Dekseal Require Import Context Labels.
Import ListNotations.

Module ByKey <: TotalLeBool.
  Definition t := Pair.
  Definition leb (a b : t) : bool := str_le (fst a) (fst b).
  Lemma leb_total : forall a b, leb a b = true \/ leb b a = true.
  Proof.
    intros a b. unfold leb, str_le, str_compare. rewrite (compare_bytes_antisym (as_bytes (fst a))).
    destruct (compare_bytes (as_bytes (fst a)) _); auto.
  Qed.
End ByKey.

Module Import SortByKey := Sort ByKey.

Lemma sort_permutes : forall pairs, Permutation pairs (sort pairs).
Proof. exact Permuted_sort. Qed.

Lemma sort_sorts : forall pairs, Sorted key_le (sort pairs).
Proof. intros. apply Sorted_LocallySorted_iff, LocallySorted_sort. Qed.

Definition canonical := Context.from_pairs sort.

(* All that is proved. *)
Definition theorems :=
  ( Context.of_injective sort sort_permutes sort_sorts,
    Context.of_unordered sort sort_permutes sort_sorts,
    Context.read_of sort sort_permutes sort_sorts,
    Context.of_read sort sort_permutes sort_sorts,
    Context.of_succeeds_iff sort sort_permutes sort_sorts,
    Context.of_bounded sort sort_permutes sort_sorts,
    Context.from_pairs_succeeds_iff sort sort_permutes sort_sorts,
    Context.from_pairs_of sort sort_permutes sort_sorts,
    infos_differ, messages_differ, blocks_differ, extensions, extract_salts_differ).

Print Assumptions theorems.

Extraction "model.ml" canonical read.
