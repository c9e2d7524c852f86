"""Experiments of chapter 7, why is my BN failing?"""
