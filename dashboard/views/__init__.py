"""One module per page. Streamlit runs each as a script; importing one shows nothing."""
